"""Requests answered before Django: one line each."""
