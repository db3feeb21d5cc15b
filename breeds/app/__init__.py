"""The pages, served on this machine, and the endpoint for programs: ``python -m breeds.app``."""
