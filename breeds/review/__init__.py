"""What a person should look at, and what comes of it: review, train again, teach; nothing here is HTTP."""

from breeds.review.again import Again, Score, train_again
from breeds.review.queue import Item, queue
from breeds.review.unlabelled import Suggestion, label_next

__all__ = ["Again", "Item", "Score", "Suggestion", "label_next", "queue", "train_again"]
