"""Filters and limits in forms: from the texts of fields to what a request has of them, and back."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any

from jobs.budget import Budget
from jobs.catalog import Catalog
from jobs.errors import InvalidInput
from jobs.job import Job

#: Of a filter: its policy ("": not asked for), and the limits of its score.
POLICY, LEAST, MOST = "filter:", "least:", "most:"
#: What a field of a moment holds, which has no zone: it is UTC.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?")


def filters_from(values: Mapping[str, str]) -> list[dict[str, Any]]:
    """The filters that are asked for; raises InvalidInput for limits of one that is not."""
    names = [one.removeprefix(POLICY) for one in values if one.startswith(POLICY)]
    return [one for name in names if (one := _filter(values, name))]


def budget_from(values: Mapping[str, str]) -> dict[str, Any]:
    """The three limits, None where there is none; raises InvalidInput naming the field."""
    deadline = values.get("deadline", "").strip()
    return {
        "max_images": whole(values, "max_images"),
        "max_device_seconds": number(values, "max_device_seconds"),
        "deadline": f"{deadline}Z" if _MOMENT.fullmatch(deadline) else deadline or None,
    }


def budget_values(budget: Budget) -> dict[str, str]:
    """The fields that ask for these limits."""
    moment = budget.deadline
    return {
        "max_images": _text(budget.max_images),
        "max_device_seconds": _text(budget.max_device_seconds),
        "deadline": moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S") if moment else "",
    }


def wish_values(catalog: Catalog, job: Job, now_ms: int) -> dict[str, str]:
    """The fields that ask for a job's filters and limits, of one image.

    Not of filters that are offered no more, nor of a deadline that has passed.
    """
    kept = [one for one in job.filters if one.name in catalog.filters]
    found = budget_values(job.only())
    if job.deadline_ms is not None and job.deadline_ms <= now_ms:
        found["deadline"] = ""
    for one in kept:
        found |= {
            f"{POLICY}{one.name}": one.policy,
            f"{LEAST}{one.name}": _text(one.at_least),
            f"{MOST}{one.name}": _text(one.at_most),
        }
    tries = any(one.policy == "retry" for one in kept)
    return found | {
        "max_tries": str(job.max_tries) if tries else "",
        "accept": "1" if tries and job.accept else "",
    }


def whole(values: Mapping[str, str], name: str) -> int | None:
    """A field's whole number, None where it is empty; raises InvalidInput."""
    text = values.get(name, "").strip()
    if not text:
        return None
    if not text.removeprefix("-").isdecimal() or len(text) > 15:
        raise InvalidInput("this is not a whole number", where=name)
    return int(text)


def number(values: Mapping[str, str], name: str) -> float | None:
    """A field's number, None where it is empty; raises InvalidInput."""
    text = values.get(name, "").strip()
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise InvalidInput("this is not a number", where=name) from error


def _filter(values: Mapping[str, str], name: str) -> dict[str, Any]:
    limits = {
        "at_least": number(values, f"{LEAST}{name}"),
        "at_most": number(values, f"{MOST}{name}"),
    }
    given = {limit: value for limit, value in limits.items() if value is not None}
    policy = values[f"{POLICY}{name}"]
    if policy:
        return {"name": name, "policy": policy, **given}
    if given:
        raise InvalidInput(
            "there is a limit, and the filter is off",
            where=f"{POLICY}{name}",
            remedy="choose what becomes of pictures beyond it, or clear the limit",
        )
    return {}


def asked_names(values: Mapping[str, str]) -> Iterator[str]:
    """Names of the filters that are asked for, in the order in which the request has them."""
    named = (one for one, policy in values.items() if one.startswith(POLICY) and policy)
    return (one.removeprefix(POLICY) for one in named)


def _text(value: float | None) -> str:
    """A number as a field shows it, without losing any of it."""
    if value is None:
        return ""
    short = f"{value:g}"
    return short if float(short) == value else f"{value}"
