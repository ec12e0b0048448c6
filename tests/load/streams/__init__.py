"""The benchmark of token streams: `python -m tests.load.streams [--quick] [--only NAME]` prints a report in Markdown.

Every comparison alternates its variants in one run, on one provider process. Times are of one machine's monotonic
clock, which all processes share. An app of Django's, so that its programs are found.
"""
