"""Prompts that need no data set: plain words, drawn by index and seed."""

from __future__ import annotations

from random import Random

WORDS = (
    "about above across after again along always animal answer apple around autumn bird blue boat "
    "book bread bridge bright brother build candle carry castle chair city clear climb cloud coast "
    "cold colour corner country cross dance dark daughter deep door dream early earth evening fair "
    "farm father field fire fish floor flower follow forest friend garden glass gold grass green "
    "harbour heart hill horse house island journey kitchen lake lamp language large late leaf "
    "letter light listen little long market meadow moon morning mother mountain music narrow near "
    "night north ocean old open orange paper path people picture place plain quiet rain remember "
    "river road room round sail salt school sea season shore silver sister sky slow small snow "
    "song south spring square stand star stone storm story street summer sun table tall teacher "
    "thing tower town train travel tree valley village voice walk wall water weather west wheat "
    "wheel white wide wind window winter wood world write year yellow young"
).split()
# Made-up words are of two of these each.
CONSONANTS, VOWELS = "bdfgklmnprstv", "aeiou"
OPENERS = (
    "Describe in a few sentences how these belong together:",
    "Write a short story in which all of these occur:",
    "Continue this list in the same manner:",
    "Explain to a child what these have in common:",
)


def made_up_word(random: Random) -> str:
    """Four letters that no language has to know."""
    return "".join(random.choice(CONSONANTS) + random.choice(VOWELS) for _ in range(2))


def generate_text(index: int, *, seed: int, words: int) -> str:
    """The prompt with this index: from a few words to ``words``, the same on every machine."""
    random = Random(f"{seed}-{index}")
    count = random.randint(min(4, words), words)
    return f"{random.choice(OPENERS)} {' '.join(random.choices(WORDS, k=count))}."
