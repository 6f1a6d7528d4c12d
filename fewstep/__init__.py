"""The front door: the command line, the local stack, and what a program imports.

from fewstep import Client, JobRequest, RecipeRequest

with Client("http://127.0.0.1:8700") as client:
    job = client.submit(JobRequest(recipe=RecipeRequest(steps=4)), ["a red circle"])
"""

from importlib import metadata

from jobs import errors
from jobs.client import Client
from jobs.client_async import AsyncClient
from jobs.client_upload import Stored
from jobs.job import JobRequest, JobView, Submission
from jobs.recipe import RecipeRequest, StyleWeight
from jobs.sources.reading import Reading
from jobs.templates.expansion import Expansion, TemplateRequest

__version__ = metadata.version("fewstep")

__all__ = [
    "AsyncClient",
    "Client",
    "Expansion",
    "JobRequest",
    "JobView",
    "Reading",
    "RecipeRequest",
    "Stored",
    "StyleWeight",
    "Submission",
    "TemplateRequest",
    "__version__",
    "errors",
]
