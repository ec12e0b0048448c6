"""Who may: decisions about callers, without a word of HTTP.

Stands beside `programs` on `models`.
"""
