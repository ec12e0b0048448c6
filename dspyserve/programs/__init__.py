"""What is served: registrations, language models, schemas, values and the built programs.

Lives above `models` and `conf`. Knows nothing of how a program is executed, traced or called.
"""
