"""What a photo can be labelled: any line of text but the one that an answer of none of the classes is."""

from __future__ import annotations

from breeds.text import visible

#: What an answer for a photo of none of the classes is called; so no class may be.
UNKNOWN = "unknown"


def means_unknown(name: str) -> bool:
    """Say whether a class of this name could not be told from a refusal."""
    return name.strip().casefold() == UNKNOWN


def unfit(label: str) -> str:
    """Say why a person may not give this label to a photo, "" if nothing speaks against it.

    Classes that come with the photos may be called more than that, as folders may be.

    Examples
    --------
    >>> unfit("beagle"), unfit(" beagle")
    ('', 'there are blanks around it')
    """
    if means_unknown(label):
        return "photos of none of the classes are answered so"
    if label != label.strip():
        return "there are blanks around it"
    if label != visible(label):
        return "there are characters in it that cannot be seen, or bytes that are no UTF-8"
    return ""
