"""What a load test's messages say: common English words, so that compression finds no more in them than in others'."""

from __future__ import annotations

import random

_WORDS = (
    "about above after again along also always around because been before behind being below between both but came "
    "can come could day did does down during each even every few find first for from gave give goes going gone good "
    "great had half has have here him his hour house how into its just keep kind know last late left less like line "
    "little live long look made make many may mean might more most much must name near need never new next night "
    "nothing now number off often old once only open other our out over own part people place point put read right "
    "room said same saw say see seem seven should show side since small some soon still such sure take talk tell than "
    "that the their them then there these they thing think this those though three through time together too took "
    "turn two under until upon used very wait want was water way week well went were what when where which while who "
    "whole why will with without word work world would write year yes yet you young your"
)
_BETWEEN = (" ", " ", " ", " ", " ", ", ", ". ", "? ")


def prose(length: int) -> str:
    """Text of so many characters, each of one byte; the same each time."""
    source = random.Random(length)  # noqa: S311  no secret
    words, text = _WORDS.split(), ""
    while len(text) < length:
        text += source.choice(words) + source.choice(_BETWEEN)
    return text[:length]
