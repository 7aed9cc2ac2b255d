"""All that the model says of one chat, and the same as a document for programs."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

from hubbub.cost.bills import Bill, bill
from hubbub.cost.capacity import Broadcast, Storm, Use, broadcast, storm, uses
from hubbub.cost.catalogue import Region, Work
from hubbub.cost.scenario import SHAPES, Scenario

AUDIENCES = (1_000, 10_000, 100_000)
"""Of how many listeners a broadcast's time is told."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """All that the model says of one chat.

    Attributes:
        region: the region's name.
        chat: the chat.
        bills: one for each home, in the order of `SHAPES`.
        uses: the quotas by home, the first to break first.
        broadcasts: by number of listeners.
        storm: what it takes until everybody is back on API Gateway.
        unverified: inputs that were read nowhere, by name, and why they are believed.
        dates: the oldest and the newest day that prices are from.

    """

    region: str
    chat: Scenario
    bills: tuple[Bill, ...]
    uses: dict[str, list[Use]]
    broadcasts: tuple[Broadcast, ...]
    storm: Storm
    unverified: dict[str, str]
    dates: tuple[str, str]


def estimate(chat: Scenario, name: str, region: Region, work: Work) -> Estimate:
    """What the model says of a chat in a region."""
    bills = tuple(bill(shape, chat, region, work) for shape in SHAPES)
    inputs = region.inputs()
    days = sorted(each.date.isoformat() for each in inputs.values())
    return Estimate(
        region=name,
        chat=chat,
        bills=bills,
        uses={each.shape: uses(each, chat, region, work) for each in bills},
        broadcasts=tuple(broadcast(many, region, work, size=bills[0].load.entry_bytes) for many in AUDIENCES),
        storm=storm(bills[0], chat, region, work),
        unverified={key: each.reason or "" for key, each in inputs.items() if not each.verified},
        dates=(days[0], days[-1]),
    )


def document(found: Estimate) -> str:
    """The estimate as JSON, with dollars to the cent and headroom that is null where nothing is used."""
    shapes = {
        each.shape: {
            "usd_a_month": round(each.usd, 2),
            "instances": each.instances,
            "items": [
                {"what": item.what, "quantity": round(item.quantity, 3), "unit": item.unit, "usd": round(item.usd, 2)}
                for item in each.items
            ],
            "quotas": [
                {
                    "what": use.what,
                    "used": round(use.used, 3),
                    "limit": use.limit,
                    "unit": use.unit,
                    "headroom": round(use.headroom, 2) if math.isfinite(use.headroom) else None,
                    "raisable": use.raisable,
                    "verified": use.verified,
                }
                for use in found.uses[each.shape]
            ],
        }
        for each in found.bills
    }
    whole: dict[str, Any] = {  # Any: what JSON can hold
        "region": found.region,
        "inputs": msgspec.to_builtins(found.chat),
        "shapes": shapes,
        "broadcasts": msgspec.to_builtins(found.broadcasts),
        "everybody_back": msgspec.to_builtins(found.storm),
        "unverified": found.unverified,
        "prices_from": list(found.dates),
    }
    return json.dumps(whole, indent=2)
