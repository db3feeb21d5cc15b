"""What a person should look at, and what comes of it: review, train again, teach; nothing here is HTTP."""

from breeds.review.again import Again, Score, train_again
from breeds.review.queue import Item, queue
from breeds.review.teach import Refused, Taught, Written, teach
from breeds.review.unlabelled import Suggestion, label_next

__all__ = [
    "Again",
    "Item",
    "Refused",
    "Score",
    "Suggestion",
    "Taught",
    "Written",
    "label_next",
    "queue",
    "teach",
    "train_again",
]
