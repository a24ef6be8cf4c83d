"""Numbers that the papers print, kept apart from everything measured here.

PERPLEXITY        ELAS and rivals: C4 validation perplexity by method and size, with its source
WARMUP            ELAS's ablation of the dense warm-up (steps -> perplexity)
FFN_MEMORY_CUT    share of the FFN's activation memory that ELAS claims to save
MATH500           FGO (arXiv 2602.10048, tables 1 and 3): Qwen2.5-Math-1.5B after QUESTIONS questions of
                  MATH-lighteval, 8 responses each; accuracy (%), length (tokens), ACT (accuracy in % per
                  100 tokens)
INVALID           of those questions, how many had all advantages zero, for the paper's four models

ELAS's evaluator divides the summed loss by n + 1 batches instead of n, so these perplexities are 1.5 to
2 % too low (130M LORO: 24.59 printed, about 25.0 corrected).
"""

SIZES = ("60M", "130M", "350M", "1B")
PERPLEXITY = {
    "Full rank": ((34.06, 24.36, 18.80, 15.56), "GaLore's text"),
    "GaLore": ((34.88, 25.36, 18.95, 15.64), "GaLore's text"),
    "LORO": ((33.96, 24.59, 18.84, 15.19), "130M from LORO's log, rest secondary"),
    "ELAS": ((34.12, 24.80, 19.94, 15.69), "secondary: a summary of arXiv 2605.03667"),
}
WARMUP = {
    "60M": {0: float("nan"), 500: 36.71, 1000: 34.12, 2000: 34.48},
    "130M": {0: 29.70, 500: 25.76, 1000: 24.80, 2000: 24.93},
}
FFN_MEMORY_CUT = 0.44

QUESTIONS = 3200
MATH500 = {
    "before": {"accuracy": 40.0, "length": 763, "act": 5.2},
    "GRPO": {"accuracy": 65.6, "length": 578, "act": 11.3},
    "FGO": {"accuracy": 68.6, "length": 441, "act": 15.6},
}
INVALID = {"GRPO": (1584, 1866, 2617, 2444), "FGO": (0, 0, 0, 0)}
