"""The `guardhouse` command: thin groups over the agent and the cores."""
