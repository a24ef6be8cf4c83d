"""The lab's own tasks and the models trained on them."""
