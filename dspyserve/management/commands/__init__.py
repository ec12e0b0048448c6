"""One module per `manage.py` command; each may import what `management` may."""
