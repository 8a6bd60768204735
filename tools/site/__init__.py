"""The static site: docs, a page for each estimator and task, and the reference results.

`python -m tools.site` writes Sphinx's source, Markdown that MyST reads, into build/site/, and
Sphinx builds it into site/ with warnings as errors.  Everything generated comes from the registry,
the docstrings and the frames of reference runs.
"""
