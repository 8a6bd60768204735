from .dask_cluster import PATIENCE, dask_answers
from .ray_cluster import ray_answers
