"""Submit a few prompts to a running stack (`fewstep up`), watch them, and say where they lie."""

import os

from fewstep import Client, JobRequest, RecipeRequest

PROMPTS = [
    "a big yellow star in the centre on a black background",
    {"prompt": "a small blue heart on the left on a pink background", "seed": 7, "label": "heart"},
]


def main() -> None:
    """Four pictures of each prompt, in 4 steps."""
    request = JobRequest(recipe=RecipeRequest(steps=4), repeats=4, name="example")
    with Client(os.environ.get("FEWSTEP_API_URL", "http://127.0.0.1:8700")) as client:
        job = client.submit(request, PROMPTS)
        for view in client.watch(job.id):
            print(f"{view.state}: {view.done} of {view.images} images {view.reason}".rstrip())
        results = client.results(job.id)
    for file in results["files"]:
        print(f"{file['bytes']:>10}  {file['key']}")


if __name__ == "__main__":
    main()
