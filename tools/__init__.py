"""Programs for developers: they live in the clone and are no part of the installed package."""
