"""What a person should look at, and what comes of it: review, train again, teach; nothing here is HTTP."""

from breeds.review.again import Again, Score, train_again
from breeds.review.queue import Item, label_next, queue
from breeds.review.teach import Refused, Taught, Written, teach

__all__ = [
    "Again",
    "Item",
    "Refused",
    "Score",
    "Taught",
    "Written",
    "label_next",
    "queue",
    "teach",
    "train_again",
]
