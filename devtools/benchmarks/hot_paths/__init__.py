"""`make bench-hot-paths`: what is answered before Django, beside the barest server that does the same."""
