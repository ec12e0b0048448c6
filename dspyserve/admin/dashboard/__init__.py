"""The dashboard: how programs and models did over a time, drawn by the server from rollups."""
