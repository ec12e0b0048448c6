"""The door for clients of OpenAI's chat completions: programs as models, in that protocol's own words."""
