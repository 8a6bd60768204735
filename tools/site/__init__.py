"""The static site: docs, a page for each estimator and task, and the reference results.

`python -m tools.site` writes a source for Sphinx, in Markdown that MyST reads, which Sphinx builds
into site/ with warnings as errors.  Everything generated comes from the registry,
the docstrings and the frames of reference runs.
"""
