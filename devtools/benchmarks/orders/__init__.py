"""POST and GET /orders at full speed, beside the barest program that does the same."""
