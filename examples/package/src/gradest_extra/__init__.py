"""Plugins for gradest; pyproject.toml names them as entry points."""
