"""Programs in the admin: what they are, their versions, and trying them out."""
