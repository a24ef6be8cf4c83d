"""What the paper reports (arXiv 2602.10048, tables 1 and 3), to stand beside what the lab measures.

Qwen2.5-Math-1.5B, 3,200 questions of MATH-lighteval, 8 responses each; accuracy (%), length (tokens) and
ACT (accuracy in % per 100 tokens) on MATH500.
"""

QUESTIONS = 3200
MATH500 = {
    "before": {"accuracy": 40.0, "length": 763, "act": 5.2},
    "GRPO": {"accuracy": 65.6, "length": 578, "act": 11.3},
    "FGO": {"accuracy": 68.6, "length": 441, "act": 15.6},
}
# Questions of 3,200 whose advantages are all zero, for the paper's four models.
INVALID = {"GRPO": (1584, 1866, 2617, 2444), "FGO": (0, 0, 0, 0)}
