"""What there is to serve: requests as columns, windows and their statistics, readers, generators, load."""

from autopoiesis.workload.classes import SLO, class_label, class_labels
from autopoiesis.workload.requests import Requests, merge, single_requests
from autopoiesis.workload.windows import ClassWindow, Window

__all__ = ["SLO", "ClassWindow", "Requests", "Window", "class_label", "class_labels", "merge", "single_requests"]
