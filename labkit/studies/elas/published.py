"""Numbers that the papers print, kept apart from everything measured here.

PERPLEXITY        C4 validation perplexity by method and size, lower is better, with where it comes from
WARMUP            ELAS's ablation of the dense warm-up (steps -> perplexity)
FFN_MEMORY_CUT    share of the FFN's activation memory that ELAS claims to save

Their evaluator divides the summed loss by n + 1 batches instead of n, so these perplexities are 1.5 to
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
