"""Does the suite notice a mistake?  Plant one known fault at a time in a copy and see which test fails.

    python tests/mutants.py           every fault (`make mutants`)
    python tests/mutants.py NAME      those whose name contains NAME

Two faults are tried at a time, each in a copy of its own, which holds the tracked files as they are now;
the working tree is never touched. Each run of pytest is a fork (pytest_server.py). Exit code: 0 every
fault was caught, 1 one survived, 2 nothing can be said (a stale fault, a suite that is red without any).
"""

import argparse
import contextlib
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from shutil import copyfile
from typing import IO

from rich.console import Console
from rich.progress import track
from rich.table import Table

from labkit.runner import processes

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("labkit", "sparse24", "tokenstats")
TIMEOUT = 240.0  # seconds until a fault that never ends counts as survived
JOBS = 2  # copies, and faults tried at a time


class Unusable(Exception):
    """The run can say nothing about the suite; the message says why."""


@dataclass(frozen=True)
class Fault:
    """One mistake: in ``file`` the text ``old``, found exactly once, becomes ``new``.

    tests   the smallest pytest files or node ids that should notice
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, source: str) -> str:
        """``source`` with the fault in it. Unusable if ``old`` does not occur exactly once."""
        if (count := source.count(self.old)) != 1:
            raise Unusable(
                f"fault {self.name!r} is stale: its old text must occur once in {self.file}; "
                f"it occurs {count} times"
            )
        return source.replace(self.old, self.new)


REFERENCE, GROUPS = "kernels/sparse24/reference.py", "kernels/sparse24/groups.py"
STATS, STATS_TRITON = "kernels/tokenstats/reference.py", "kernels/tokenstats/kernels.py"
BEAMS, RULES = "labkit/soar/beams.py", "labkit/soar/strategies.py"
CACHE, KEPT = "labkit/soar/models/caches.py", "labkit/soar/models/keys_values.py"
CAUSAL, STEP = "labkit/soar/models/diffusion_lm.py", "labkit/soar/beam_kernel.py"
ADVANTAGES, ENTROPIES = "labkit/fgo/advantages.py", "labkit/fgo/measures.py"
INTERVALS = "labkit/studies/stats.py"
EVALUATION, PRESETS, BASELINES = (
    "labkit/elas/evaluation.py",
    "labkit/notebooks.py",
    "labkit/runner/baselines.py",
)

SPARSE24, TOKENSTATS = ("tests/test_sparse24.py",), ("tests/test_tokenstats.py",)
KERNELS = ("tests/test_sparse24_kernels.py::test_every_operation_equals_the_reference",)
GRAPHS, PLANS = ("tests/test_sparse24_autograd.py",), ("tests/test_sparse24_plans.py",)
SELFCHECK = ("tests/test_planted_faults.py::test_a_fault_in_sparse24_is_caught",)
OPERATORS = ("tests/test_kernel_operators.py",)
GRADIENTS = ("tests/test_tokenstats_gradients.py",)
RIVALS, COUNTS = "tests/test_soar_strategies.py::test_", "labkit/soar/counts.py"
SEARCH, BLOCKED = "tests/test_soar_search.py::test_", "tests/test_soar_block_diffusion.py::test_"
WEIGHTS = ("tests/test_hostile_weights.py",)
PROCESSES, HOSTILE = "tests/test_processes.py::test_", "tests/test_hostile.py::test_"
ANSWERS = ("tests/test_elas_sources.py::test_an_answer_that_goes_wrong_is_one_error_and_leaves_nothing",)
SOAR, FGO = ("tests/test_soar_search.py",), ("tests/test_fgo_advantages.py",)
CACHED = ("tests/test_soar_caches.py",)
BLOCKS = ("tests/test_soar_block_diffusion.py",)
FUSED = ("tests/test_soar_beam_kernel.py::test_one_step_is_the_same_to_the_last_bit",)
BROKEN = ("tests/test_soar_beam_kernel.py::test_a_beam_that_is_shown_nan_proposes_nothing",)
CHECKED = ("tests/test_soar_beam_compiled.py::test_the_check_at_first_use_catches_a_wrong_kernel",)
ENTROPY = ("tests/test_fgo_tasks.py::test_three_entropies_by_hand",)
EVALUATOR = ("tests/test_elas_pretrain.py::test_the_evaluator_counts_every_token_once",)
PARAMETERS = ("tests/test_runs.py::test_a_wrong_parameter_is_one_error_and_nothing_is_written",)
DEVICE, USE = "labkit/device.py", ("tests/test_device.py",)
BASELINE = ("tests/test_baselines.py",)

FAULTS = (
    Fault("weights of integers are taken, folders", "labkit/soar/models/loaders.py",
          "if not tensor.is_floating_point():", "if False:", WEIGHTS),
    Fault("weights of integers are taken, files", "labkit/soar/models/transformer.py",
          " or not dtypes <= FLOATS:", ":", WEIGHTS),
    Fault("missing weights are drawn at random", "labkit/causal_lm.py",
          'if missing := sorted(loaded["missing_keys"]):', "if missing := []:", WEIGHTS),
    Fault("an answer's head is waited for", "labkit/elas/opener.py",
          "answer.result(seconds)", "answer.result()",
          ("tests/test_elas_sources.py::test_a_head_without_end_is_not_waited_for",)),
    Fault("a trace without steps is not named", "labkit/widgets/show.py",
          "{source} does not ({error})", "it does not ({error})",
          (HOSTILE + "a_whole_file_that_leads_nowhere_is_one_line_for_show",)),
    Fault("mask keeps the smallest two, reference", REFERENCE,
          "return list(keys.unflatten", "return list((-keys).unflatten", SPARSE24),
    Fault("mask keeps the smallest two, Triton", GROUPS,
          """best = tl.maximum(high01, high23)
    second = tl.maximum(tl.minimum(high01, high23), tl.maximum(low01, low23))""",
          """best = tl.minimum(low01, low23)
    second = tl.minimum(tl.maximum(low01, low23), tl.minimum(high01, high23))""", KERNELS),
    Fault("metadata index swapped, reference", REFERENCE,
          "(first | second << 2)", "(second | first << 2)", SPARSE24),
    Fault("metadata index swapped, Triton float32", GROUPS,
          "<< 32, i0 | i1 << 2", "<< 32, i1 | i0 << 2", KERNELS),
    Fault("metadata index swapped, Triton 16-bit", GROUPS,
          "15 - (p & 3 | (q & 3) << 2)", "15 - (q & 3 | (p & 3) << 2)", KERNELS),
    Fault("metadata nibbles swapped", REFERENCE, "low | high << 4", "high | low << 4", SPARSE24),
    Fault("masked gradient reaches the dropped entries", REFERENCE,
          "return groups.new_zeros(groups.shape).scatter_", "return groups.clone().scatter_", SPARSE24),
    Fault("token_stats takes the highest index of a tie, reference", STATS,
          "logits.argmax(-1)", "logits.shape[-1] - 1 - logits.flip(-1).argmax(-1)", TOKENSTATS),
    Fault("token_stats takes the highest index of a near tie, Triton", STATS_TRITON,
          "tl.min(tl.where(x == best, at, 2147483647), 0)", "tl.max(tl.where(x == best, at, -1), 0)",
          TOKENSTATS),
    Fault("token_stats takes the last chunk of a far tie, Triton", STATS_TRITON,
          "tl.where(top > m, start", "tl.where(top >= m, start", TOKENSTATS),
    Fault("token_stats divides by the temperature first, Triton", STATS_TRITON,
          "(x - best) * (inverse * LOG2E)", "x * (inverse * LOG2E) - best * (inverse * LOG2E)", GRADIENTS),
    Fault("token_stats divides by the temperature first, reference", STATS,
          "log_softmax((wide - wide.detach().amax(-1, keepdim=True)) / temperature",
          "log_softmax(wide / temperature", GRADIENTS),
    Fault("entropy's closed-form gradient without the entropy", STATS,
          "(logp.masked_fill(p == 0, 0) + entropy[:, None])", "logp.masked_fill(p == 0, 0)", GRADIENTS),
    Fault("a compiled graph loses the packed gradient", "kernels/sparse24/operators.py",
          "packed_out.copy_(kept)", "pass", OPERATORS),
    Fault("a graph is told another shape than it gets", "kernels/sparse24/operators.py",
          'values, metadata = layouts.shapes(x.shape, "rows")',
          'metadata, values = layouts.shapes(x.shape, "rows")', OPERATORS),
    Fault("straight-through is masked", "kernels/sparse24/dispatch.py",
          "if not (torch.is_grad_enabled() and", "if not (False and", ("tests/test_sparse24.py",)),
    Fault("moved packed tensors lose their gradient", "kernels/sparse24/packed.py",
          "None if self.link is None else Move", "None if self.link is self.link else Move", OPERATORS),
    Fault("local sweeps without TLS", "labkit/runner/sweep.py",
          "security=Security.temporary())", "security=None)",
          ("tests/test_sweep.py::test_a_stranger_on_this_machine_cannot_reach_the_local_scheduler",)),
    Fault("a crafted header builds any number of layers", "labkit/fgo/lab/reasoner.py",
          'if about["shape"]["layers"] != layers:', "if False:",
          ("tests/test_fgo_study.py::test_reasoner_makes_nothing_that_its_file_does_not_hold",)),
    Fault("a second derivative passes as 0", "kernels/sparse24/autograd.py",
          "if not torch.is_grad_enabled():", "if True:", GRAPHS),
    Fault("relu2_ffn ignores autocast", "kernels/sparse24/dispatch.py",
          "    z = _cast(z)\n", "", GRAPHS),
    Fault("metadata assumed behind its values", "kernels/sparse24/layouts.py",
          "if whole and behind and", "if", GRAPHS),
    Fault("out of memory taken for a broken library", "kernels/sparse24/cusparselt.py",
          "if selfcheck.out_of_memory(error):", "if False:", PLANS),
    Fault("plans never dropped", "kernels/sparse24/plans.py",
          "while len(_plans) > LIMIT:", "while False:", PLANS),
    Fault("a plan of a capture is kept", "kernels/sparse24/plans.py",
          "plan is None or plan.algorithm is None:", "plan is None:", PLANS),
    Fault("the self-check believes every kernel", "kernels/sparse24/selfcheck.py",
          "_verdicts[key] = _difference(key[1], check)", "_verdicts[key] = None", SELFCHECK),
    Fault("beam never prunes", BEAMS,
          "kept = valid & ~merged & (rank < limit)", "kept = valid & ~merged", SOAR),
    Fault("beam one too wide", RULES, "width=config.beam,", "width=config.beam + 1,", SOAR),
    Fault("merged duplicates not merged", BEAMS,
          "merged = torch.tril(same, diagonal=-1).any(-1)", "merged = torch.zeros_like(valid)", SOAR),
    Fault("collapse rule ignored", BEAMS,
          "rule.collapse), 1, limit)", "rule.collapse), limit, limit)", SOAR),
    Fault("threshold comparison flipped", RULES,
          "(confidence > self.threshold)", "(confidence < self.threshold)", SOAR),
    Fault("threshold itself counts as above", RULES,
          "(confidence > self.threshold)", "(confidence >= self.threshold)",
          (f"{SEARCH}a_mask_is_sure_above_the_threshold_not_at_it",)),
    Fault("fused step: equal scores in reverse", STEP,
          "chosen = -_highest(tl.where(score == highest, -c, -KP * DP))",
          "chosen = _highest(tl.where(score == highest, c, 0))", FUSED),
    Fault("fused step: duplicates not merged", STEP,
          "| (fingerprint == same)", "& (fingerprint == same)", FUSED),
    Fault("fused step: the higher of two equally confident positions", STEP,
          "tl.min(tl.where(confidence == highest[:, None], w[None, :], WP - 1), 1)",
          "tl.max(tl.where(confidence == highest[:, None], w[None, :], 0), 1)", FUSED),
    Fault("fused step: EOS anywhere ends a sequence", STEP, "& (l[None, :] < until[:, None])", "", FUSED),
    Fault("fused step: NaN is skipped over", STEP, "tl.where(broken[:, None], NEVER, confidence)",
          "tl.where(confidence != confidence, NEVER, confidence)", BROKEN),
    Fault("factor rule: n for n + 1", COUNTS, "((n + 1) * (1 - ranked)", "(n * (1 - ranked)",
          (f"{RIVALS}factor_rule_takes_the_largest_n_that_it_allows",)),
    Fault("EB-Sampler bounds the whole entropy", COUNTS,
          " - ranked.cummax(-1).values <= gamma", " <= gamma",
          (f"{RIVALS}eb_bounds_the_entropy_of_what_is_committed_together",)),
    Fault("Prophet's threshold does not fall", COUNTS, "mean >= threshold * share", "mean >= threshold",
          (f"{RIVALS}prophet_fills_the_block_once_the_gaps_are_wide_enough",)),
    Fault("KLASS keeps a streak across blocks", "labkit/soar/stability.py",
          "(row >= 0) & (self._positions[before] == positions).all(-1)", "row >= 0",
          (f"{RIVALS}klass_commits_what_is_sure_and_stood_still",)),
    Fault("a position remembers its first confidence", "labkit/soar/remasking.py",
          "put(filled, commit[:, 0],",
          "put(filled, (commit & (filled[:, None].gather(2, where) == NEVER))[:, 0],",
          (f"{RIVALS}running_confidence_remasking_masks_again_what_is_less_sure_than_the_new",)),
    Fault("order-token search adds probabilities", RULES, "exact.log() if", "exact if",
          (f"{RIVALS}order_token_search_keeps_the_likeliest_of_positions_and_tokens",)),
    Fault("the margin forgets the first probability", "labkit/soar/scoring.py",
          "-top * torch.expm1(-_gap(flat))", "-torch.expm1(-_gap(flat))",
          (f"{RIVALS}the_three_confidences_disagree_where_they_should",)),
    Fault("a stop string behind a mask ends a text", "labkit/soar/moves.py",
          "(masked.cumsum(-1) == 0)", "(masked.cumsum(-1) >= 0)",
          ("tests/test_soar_generate.py::test_a_stop_string_behind_a_mask_does_not_end_anything",)),
    Fault("masks of an answer weigh alike whatever their number", "labkit/soar/likelihood.py",
          "1 / (n * comb(length, n))", "1 / comb(length, n)",
          ("tests/test_soar_likelihood.py::test_few_tokens_are_scored_exactly",)),
    Fault("a text of the harness keeps its last block whole", "labkit/soar/harness.py",
          "row[start : start + one.length]", "row[start : start + keywords['gen_length']]",
          ("tests/test_soar_harness.py::"
           "test_a_text_has_the_tokens_a_task_allows_and_blocks_need_not_divide_them",)),
    Fault("the check at first use lets a wrong beam kernel pass", "labkit/soar/beam_check.py",
          "assert not different,", "assert step or not different,", CHECKED),
    Fault("short rows: the highest index of a tie", STATS_TRITON,
          "arg = tl.min(tl.where(x == best[:, None], at[None, :], WIDTH), 1)",
          "arg = tl.max(tl.where(x == best[:, None], at[None, :], 0), 1)", TOKENSTATS),
    Fault("prefix cache freezes later blocks too", CACHE,
          "& (every >= low)", "& (every >= low) & (every <= high)", CACHED),
    Fault("new keys and values not put in", KEPT,
          "whole[self.rows, self.where] =", "whole.clone()[self.rows, self.where] =", CACHED),
    Fault("position before the block not computed again", CACHE,
          "return refreshed.scatter(1, requested, True)", "return refreshed", CACHED),
    Fault("newest first state makes room", KEPT, "argsort(self._used", "argsort(-self._used",
          ("tests/test_soar_caches.py::test_what_is_computed",)),
    Fault("padding in the fingerprint", CACHE,
          "torch.where(inside, first, -1)", "torch.where(inside, first, 0)",
          ("tests/test_soar_caches.py::test_tokens_are_not_taken_for_padding",)),
    Fault("block-causal attention sees the next block", CAUSAL,
          "(where // block)", "(where // block + 1)", CACHED),
    Fault("blocks counted from the end of the prompt", "labkit/soar/beams.py",
          "whole_blocks(layout, block_length, mask_id) if aligned", "() if False", BLOCKS),
    Fault("the prompt's tail counted among a block's masks", "labkit/soar/beams.py",
          "if self.masks is not None:\n            return", "if False:\n            return",
          (f"{BLOCKED}steps_are_spent_block_by_block",)),
    Fault("an end of text in the prompt ends the answer", "labkit/soar/engine.py",
          ".masked_fill(self.tokens != config.mask_id, -1)", "",
          (f"{BLOCKED}the_end_of_a_turn_in_the_prompt_ends_nothing",)),
    Fault("exact cache: a finished block never added", "labkit/soar/models/block_cache.py",
          "missing = ~known & (low > 0)", "missing = ~known & (parents < 0) & (low > 0)", BLOCKS),
    Fault("exact cache: the position before the block not computed", "labkit/soar/models/block_cache.py",
          "first = (low - self.shift).clamp(min=0)", "first = low", BLOCKS),
    Fault("exact cache: a slot in use makes room", KEPT,
          "] = self._clock  # as if", "] = self._clock + 1  # as if",
          (f"{BLOCKED}the_exact_cache_changes_nothing_and_neither_does_the_batch",)),
    Fault("Fast-dLLM v2 unshifted", "labkit/soar/models/families.py",
          'shift=True, block_key="bd_size"', 'shift=False, block_key="bd_size"', BLOCKS),
    Fault("diffusion loss without its weight 1/t", "labkit/soar/masking.py",
          "1 / (draws.rate * (high - low))", "1 / (high - low)", ("tests/test_soar_masking.py",)),
    Fault("a diffusion LM is trained behind the end of a whole text", "labkit/soar/masking.py",
          "masked & (slot < used[:, None])", "used[:, None] > 0", ("tests/test_soar_train_states.py",)),
    Fault("blocks of block-causal attention are counted from the answer", "labkit/soar/adapt.py",
          'inputs["padding"] if about.block_causal else 0', 'inputs["padding"] if False else 0',
          ("tests/test_soar_train_states.py",)),
    Fault("a diffusion LM is trained on masked prompts", "labkit/soar/adapt.py",
          "torch.cat([tokens[:, : -self.slots], states.inputs], 1)",
          "torch.cat([tokens[:, : -self.slots] * 0 + self.mask_id, states.inputs], 1)",
          ("tests/test_soar_train_dlm.py::test_prompts_are_shown_and_answers_masked",)),
    Fault("advantage sign flipped, FGO", ADVANTAGES, "reward += sign", "reward -= sign", FGO),
    Fault("advantage sign flipped, GRPO", ADVANTAGES,
          "(kept, reward - mean, 0)", "(kept, mean - reward, 0)", FGO),
    Fault("clamp dropped", ADVANTAGES, ".clamp(1 / clamp, clamp)", "", FGO),
    Fault("entropy mean for sum, sampled", ENTROPIES,
          '"sampled_sum": sampled,', '"sampled_sum": sampled / mask.sum(-1).clamp(min=1),', ENTROPY),
    Fault("entropy mean for sum, full", ENTROPIES,
          '"full_sum": full,', '"full_sum": full / mask.sum(-1).clamp(min=1),', ENTROPY),
    Fault("evaluator off by one token", EVALUATION,
          "total_nats / targets.size", "total_nats / (targets.size + 1)", EVALUATOR),
    Fault("evaluator skips the first batch", EVALUATION,
          "range(0, len(rows), batch_size)", "range(batch_size, len(rows), batch_size)", EVALUATOR),
    Fault("evaluator averages batches unweighted", EVALUATION,
          'reduction="sum")',
          'reduction="mean") * rows[:, 1:].size / -(-len(rows) // batch_size)', EVALUATOR),
    Fault("Loro's exact step skipped", "labkit/elas/loro.py",
          "if since_restart == every:", "if False:",
          ("tests/test_elas_loro.py",)),
    Fault("Loro's K0 read from the other factor", "labkit/elas/riemannian.py",
          "lr * u.T @ gv", "lr * gu.T @ v",
          ("tests/test_elas_riemannian.py",)),
    Fault("Loro writes part of an exact step that is not finite", "labkit/elas/loro.py",
          "in [] if broken else moves:", "in moves:",
          ("tests/test_elas_loro.py",)),
    Fault("no ramp after a restart inside the warm-up", "labkit/elas/schedule.py",
          "or restart in (0, warmup):", "or restart <= warmup:",
          ("tests/test_elas_loro.py",)),
    Fault("the study chooses a learning rate by its worst loss", "labkit/studies/elas/journal.py",
          "best = min(nats", "best = max(nats",
          ("tests/test_elas_study_command.py::test_the_rate_is_the_best_on_validation_once_all_were_tried",)),
    Fault("the study reads its test text while it tunes", "labkit/studies/elas/runs.py",
          "judge=not tuning", "judge=True",
          ("tests/test_elas_study_command.py::test_a_process_runs_jobs_and_keeps_a_checkpoint",)),
    Fault("warm-up counter not saved", "labkit/elas/layers.py",
          '"dense_steps_left", torch.empty((), dtype=torch.int64)',
          '"dense_steps_left", torch.empty((), dtype=torch.int64), persistent=False',
          ("tests/test_elas_model.py::test_the_switch_is_part_of_the_state",)),
    Fault("two seeds get an interval", INTERVALS, "FEWEST_SEEDS = 3", "FEWEST_SEEDS = 2",
          ("tests/test_stats.py::test_one_or_two_seeds_are_points_and_allow_no_verdict",)),
    Fault("few seeds taken for many", "labkit/intervals.py",
          "stats.t.ppf(TAILS[1], len(values) - 1)", "stats.norm.ppf(TAILS[1])",
          ("tests/test_stats.py::test_t_over_seeds_covers_95_percent",)),
    Fault("questions that all seeds share count as independent", INTERVALS,
          "total = of_seeds + (of_questions - rest) * seen", "total = of_seeds",
          ("tests/test_stats.py::test_answers_of_several_seeds_cover_95_percent",)),
    Fault("outcomes of another beam kernel are kept", "labkit/studies/soar/study.py",
          '"kernel": kernel_digest(), ', "",
          ("tests/test_soar_lab.py::test_the_study_chooses_on_validation_tests_once_and_goes_on",)),
    Fault("record accepts NaN", "labkit/metrics.py",
          " and math.isfinite(value)", "", ("tests/test_metrics.py",)),
    Fault("trace loads pickles", "labkit/reading.py",
          "allow_pickle=False", "allow_pickle=True",
          ("tests/test_traces.py::test_a_pickle_in_a_trace_is_not_run",)),
    Fault("runner ignores unknown parameters", PRESETS,
          "if name not in known:\n", "if name not in known:\n            continue\n", PARAMETERS),
    Fault("baseline direction ignored", BASELINES, '}[entry["direction"]]', '}["equal"]', BASELINE),
    Fault("baseline lets zero pass", BASELINES, "trivial.append(0.0)", "pass", BASELINE),
    Fault("missing metric passes its baseline", BASELINES, '"missing"', '"ok"', BASELINE),
    Fault("verdict hides where its baseline was recorded", BASELINES,
          "if one.get(name) != other.get(name)", "if False", BASELINE),
    Fault("another text passes as the pinned one", "labkit/elas/sources.py",
          '("" if found == source.sha256 else "-unpinned")', '""',
          ("tests/test_elas_sources.py::test_another_text_than_the_pinned_one_loads_and_says_so",)),
    Fault("kernel takes every core", "labkit/runner/execute.py",
          ', "OMP_NUM_THREADS": kernel_threads()}', "}",
          ("tests/test_runs.py::test_a_kernel_computes_with_one_thread_unless_told",)),
    Fault("SIGTERM and SIGHUP leave kernels behind", "labkit/runner/processes.py",
          "before[number] = signal.signal(number, interrupt)", "pass",
          ("tests/test_runs.py::test_a_signal_ends_the_notebooks_too",)),
    Fault("daemons outlive their notebook", "labkit/runner/processes.py",
          'if mark in process.environ().get(MARK, ""):', "if False:",
          (f"{PROCESSES}a_daemon_that_holds_the_pipe_does_not_hold_the_run",)),
    Fault("a log has no end", "labkit/runner/processes.py",
          "if len(line) <= room:", "if True:",
          (f"{PROCESSES}a_long_log_keeps_its_ends_and_says_what_is_missing",)),
    Fault("a closed terminal hides the signal", "labkit/runner/processes.py",
          "if received:", "if False:", (f"{PROCESSES}a_closed_terminal_does_not_hide_the_signal",)),
    Fault("a damaged cache entry is taken", "labkit/runner/store.py",
          'if found["sha256"] == _sha256(notebook):', "if True:", ("tests/test_store.py",)),
    Fault("printed output has no end", "labkit/runner/execute.py", "if len(text) > room:", "if False:",
          ("tests/test_runs.py::test_a_notebook_that_prints_too_much_is_cut_and_says_so",)),
    Fault("errors are read as markup", "labkit/runner/commands.py",
          "Console(markup=False, emoji=False)", "Console()",
          ("tests/test_runs.py::test_metric_names_are_printed_as_they_are",)),
    Fault("an error keeps its lines", "labkit/runner/execute.py",
          'return " ".join(text.split())', "return text",
          ("tests/test_runs.py::test_an_error_of_several_lines_is_told_whole",)),
    Fault("a figure's text ends its script", "labkit/runner/cells.py", r'.replace("<", "\\u003c")', "",
          ("tests/test_report.py",)),
    Fault("any dollars are a formula", "labkit/figures/theme.py",
          'return text.replace("$", r"\\$")', "return text", ("tests/test_figures_theme.py",)),
    Fault("a zip bomb is unpacked", "labkit/reading.py", "    if size > DATA_BYTES:", "    if False:",
          ("tests/test_traces.py::test_an_npz_that_unpacks_to_more_than_the_limit_is_not_unpacked",)),
    Fault("gzip is unpacked whole", "labkit/reading.py", "file.read(most + 1)", "file.read()",
          ("tests/test_reading.py::test_a_file_is_compared_with_the_limit_before_it_is_read",)),
    Fault("lengths in a trace are not compared", "labkit/trace_file.py",
          "sizes.setdefault(letter, size) == size", "True", ("tests/test_traces.py",)),
    Fault("a run.json names any file", "labkit/runner/compare.py",
          "if not name.strip(\".\")", "if False and not name.strip(\".\")",
          ("tests/test_baselines.py::test_no_name_in_a_run_json_leaves_its_folder",)),
    Fault("renamed before it is on the disk", "labkit/paths.py", "os.fsync(file.fileno())", "pass",
          ("tests/test_reading.py",)),
    Fault("a malformed metric is taken", "labkit/metrics.py", "            check(bundle)\n", "",
          ("tests/test_metrics.py",)),
    Fault("a download has no end", "labkit/elas/sources.py", "if size > MOST_BYTES:", "if False:",
          ANSWERS),
    Fault("a cut answer is a traceback", "labkit/elas/sources.py", "HTTPException, ", "",
          ANSWERS),
    Fault("arrays fool a choice", "labkit/checks.py",
          "except (ValueError, RuntimeError, TypeError):", "except TypeError:",
          ("tests/test_arguments.py",)),
    Fault("what is no file is read", "labkit/reading.py",
          "if not stat.S_ISREG(path.stat().st_mode):", "if False:",
          (f"{HOSTILE}a_pipe_a_device_and_a_folder_are_not_read",)),
    Fault("a damaged output loses the report", "labkit/runner/cells.py",
          "except (AttributeError, KeyError, TypeError, ValueError) as", "except ZeroDivisionError as",
          (f"{HOSTILE}a_damaged_output_costs_neither_the_report_nor_the_site",)),
    Fault("a damaged display ends its notebook", "labkit/runner/execute.py",
          "except nbformat.ValidationError as", "except ZeroDivisionError as",
          (f"{HOSTILE}a_display_of_no_mimebundle_costs_neither_cell_nor_notebook",)),
    Fault("a log is shown from its start", "labkit/runner/report.py",
          "max(0, log.stat().st_size - TAIL_BYTES)", "0",
          (f"{HOSTILE}of_a_log_without_end_or_of_no_text_the_end_is_shown",)),
    Fault("half a character loses the report", "labkit/paths.py",
          '"utf-8", "backslashreplace"', '"utf-8"',
          (f"{HOSTILE}half_a_character_does_not_lose_the_report",)),
    Fault("a number beyond the floats passes", "labkit/studies/files.py",
          "return value.bit_length() < 1024", "return True",
          (f"{HOSTILE}a_run_json_of_numbers_beyond_floats_or_of_no_baseline_is_one_line",)),
    Fault("a site is written where it stands", "labkit/runner/site.py",
          '_write(folder, run, docs, part / "new")', "_write(folder, run, docs, site)",
          (f"{HOSTILE}a_site_that_is_ended_leaves_the_old_one_whole",)),
    Fault("half past twelve is 750", "labkit/yaml_values.py",
          "if tag not in (INT, FLOAT)]", "if tag]",
          (f"{HOSTILE}numbers_are_those_that_people_mean",)),
    Fault("the second of two equal keys wins", "labkit/yaml_values.py",
          "if key.value in seen:", "if False:",
          (f"{HOSTILE}a_key_that_stands_twice_loses_no_value",)),
    Fault("a range moves its ends", "labkit/runner/sweep.py",
          "if (low, high) != (", "if False and (low, high) != (",
          (f"{HOSTILE}a_range_is_what_is_written",)),
    Fault("a metric takes another column", "labkit/runner/sweep.py", "named.get(name, name): m", "name: m",
          (f"{HOSTILE}no_metric_takes_another_column",)),
    Fault("a metric's name breaks a table", "labkit/metrics.py", "if not text.isprintable():", "if False:",
          (f"{HOSTILE}a_name_and_a_unit_are_printable",)),
    Fault("an error is obeyed by the terminal", "labkit/__main__.py", "{visible(str(error))}", "{error}",
          (f"{HOSTILE}a_path_is_shown_not_obeyed",)),
    Fault("a drip is waited for", "labkit/elas/sources.py",
          "if size < LEAST_RATE * (", "if False and size < LEAST_RATE * (",
          ("tests/test_elas_sources.py::test_a_server_that_drips_is_not_waited_for",)),
    Fault("a bad redirection is a traceback", "labkit/elas/sources.py",
          "ConnectionError, ValueError) as", "ConnectionError) as", ANSWERS),
    Fault("an index that leads nowhere is a traceback", "labkit/widgets/show.py",
          "(LookupError, TypeError, AttributeError, ArithmeticError, TraitError)", "TraitError",
          (f"{HOSTILE}an_index_that_leads_nowhere_is_one_line_for_show",)),
    Fault("a moved environment is taken for whole", "Makefile", "$(if $(NEW)$(MOVED),", "$(if $(NEW),",
          ("tests/test_setup.py",)),
    Fault("a page without Python offers to force a token", "labkit/widgets/beam_tree.py",
          '"can_run": False, "prompts": 1', '"prompts": 1', ("tests/test_export.py",)),
    Fault("a checkpoint hides the whole log", "labkit/widgets/logs.py",
          "max(newest.get(run, []), _history(path), key=len)", "_history(path)", ("tests/test_export.py",)),
    Fault("mask grid swaps the stored places", "labkit/widgets/mask_pack.py",
          "(first | second << 2)", "(second | first << 2)",
          ("tests/test_widget_mask_grid.py::test_packed_rows_are_those_of_sparse24",)),
    Fault("thinning loses the peaks", "labkit/widgets/curve_pack.py",
          "int(part[values[part].argmax()])", "int(part[0])", ("tests/test_widget_scrubber.py",)),
    Fault("Stop stops nothing", "labkit/widgets/job.py",
          "if self.halted.is_set():", "if False:",
          ("tests/test_widget_controls.py::test_stop_ends_the_work_at_its_next_step",)),
    Fault("beam tree lists the least sure fills first", "labkit/widgets/beam_pack.py",
          "np.argsort(-confidence,", "np.argsort(confidence,", ("tests/test_widget_beam_tree.py",)),
    Fault("forcing a token forces nothing", "labkit/widgets/beam_again.py",
          "tokens[position] = token\n", "pass\n",
          ("tests/test_widget_beam_tree.py::test_forcing_a_token_decodes_on_from_that_state",)),
    Fault("a full card is computed on", DEVICE, "if self.free < LEAST_FREE:", "if False:", USE),
    Fault("an old card is computed on", DEVICE, "if self.capability < LEAST_CAPABILITY:", "if False:", USE),
    Fault("another card than the one asked for", DEVICE,
          "if not number or card.number == int(number)", "if True", USE),
    Fault("a sweep's workers share a card", "labkit/runner/sweep.py",
          "self.cards[worker.name % len(self.cards)]", "self.cards[0]",
          ("tests/test_sweep.py::test_each_local_worker_has_one_card_also_after_a_restart",)),
    Fault("the model outlives its processes", "labkit/studies/elas/parallel.py",
          "    return losses, times\n", "    _steps.kept = model\n    return losses, times\n",
          ("tests/test_elas_parallel.py::test_the_model_has_ended_before_the_processes_part",)),
    Fault("a process that stays is waited for", "labkit/studies/elas/parallel.py",
          "if time.monotonic() > deadline:", "if False:",
          ("tests/test_elas_parallel.py::test_a_process_that_never_ends_is_an_error",)),
    Fault("a second signal breaks off the ending", "labkit/runner/processes.py",
          "if received and time.monotonic() < since + GRACE:", "if False:",
          (f"{PROCESSES}a_second_signal_does_not_break_off_the_ending",)),
    Fault("two who keep the same lose it", "labkit/runner/store.py", "fcntl.LOCK_EX", "fcntl.LOCK_SH",
          ("tests/test_store.py::test_two_that_finish_the_same_at_once_keep_one_of_them_whole",)),
    Fault("a checkpoint without its optimiser is resumed", "labkit/causal_lm.py",
          "if damaged or not found:", "if damaged:",
          ("tests/test_elas_pretrain.py::test_a_checkpoint_without_a_part_or_with_half_of_it_is_refused",)),
    Fault("half a checkpoint is resumed", "labkit/causal_lm.py",
          "return zipfile.is_zipfile(path)", "return True",
          ("tests/test_elas_pretrain.py::test_a_checkpoint_without_a_part_or_with_half_of_it_is_refused",)),
    Fault("every process clears checkpoints away", "labkit/elas/trainer.py",
          "if not is_main_process():", "if False:",
          ("tests/test_elas_pretrain.py::test_only_the_main_process_clears_checkpoints_away",)),
    Fault("an unscorable answer counts as wrong", "labkit/studies/fgo/responses.py",
          "np.where(np.isnan(judged), np.nan, judged > 0)", "(judged > 0)",
          ("tests/test_fgo_evaluate.py::test_a_verdict_of_nan_is_unscorable_as_in_training",)),
    Fault("a column of the same name is dropped", "labkit/rows.py",
          "if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]", "if twice := []",
          ("tests/test_fgo_cli.py",)),
    Fault("a key that stands twice loses a value", "labkit/rows.py",
          "if len(found) < len(pairs):", "if False:", ("tests/test_fgo_cli.py::test_a_bad_row_is_named",)),
    Fault("a checkpoint put aside is rotated away", "labkit/causal_lm.py",
          "self.limit, args.save_total_limit = args.save_total_limit, None", "self.limit = None",
          ("tests/test_elas_pretrain.py::test_a_checkpoint_put_aside_is_not_rotated_away",)),
    Fault("a packed form of another shape is believed", "kernels/sparse24/packed.py",
          "if given != layouts.shapes(packed.shape, packed.layout)", "if False",
          ("tests/test_sparse24_autograd.py::test_a_packed_form_of_another_shape_is_one_clear_error",)),
    Fault("a trace that cannot be loaded is saved", "labkit/trace_file.py",
          "self.__post_init__()  # a field may have changed since", "# a field may have changed since",
          ("tests/test_traces.py::test_what_could_not_be_loaded_is_not_saved",)),
    Fault("a link is not quoted", "labkit/runner/cells.py",
          '"{quote(name)}.html">', '"{name}.html">',
          ("tests/test_report.py::test_links_reach_a_notebook_whatever_its_name",)),
    Fault("a margin of another unit", INTERVALS,
          "scale * self.low and scale * self.high < margin", "self.low and self.high < margin",
          ("tests/test_stats.py::test_verdicts",)),
    Fault("equal counts of seeds are certainty", INTERVALS,
          "of_seeds, free = rest, inner", "of_seeds, free = 0.0, free",
          ("tests/test_stats.py::test_seeds_that_agree_by_chance_are_not_certain",)),
    Fault("processes of a study compute the same rows", "labkit/studies/elas/parallel.py",
          "replace=False)[rank::ranks]", "replace=False)[: config.batch_size // ranks]",
          ("tests/test_elas_parallel.py::test_two_processes_lose_what_one_loses",)),
    Fault("a wrong generation is timed", "labkit/studies/elas/generate.py",
          "if gaps[form] > TOLERANCE:", "if False:",
          ("tests/test_elas_generate.py::test_a_form_that_chooses_other_tokens_is_not_timed",)),
)  # fmt: skip


@contextlib.contextmanager
def project_copy() -> Iterator[Path]:
    """A temporary folder with the tracked files, as the working tree has them."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder).resolve()
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():  # a tracked file may be deleted
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                copyfile(ROOT / name, copy / name)
        yield copy


@contextlib.contextmanager
def pytest_server(copy: Path) -> Iterator["Server"]:
    """pytest_server.py in ``copy``: there, and in all that it starts, the copy's packages are imported."""
    changed = {
        "PYTHONPATH": os.pathsep.join((str(copy), str(copy / "kernels"))),
        # Bytecode is matched by second and size: a fault of equal length could go unseen.
        "PYTHONDONTWRITEBYTECODE": "1",
        "LABKIT_RUNS": str(copy / "runs"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [sys.executable, "tests/pytest_server.py", *PACKAGES],
            cwd=copy, env=os.environ | changed, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        ) as process,
    ):  # fmt: skip
        yield Server(copy, process, log)


@dataclass(frozen=True)
class Server:
    """A copy, the process that runs its tests, and the file for what they print."""

    copy: Path
    process: subprocess.Popen
    log: IO[bytes]

    def pytest(self, tests: Sequence[str], timeout: float | None = None) -> tuple[int | None, str]:
        """(exit code, what was printed) of ``tests``; None if they were killed at ``timeout``.

        timeout   seconds

        Nothing that they started is left. Unusable if the server has ended.
        """
        mark = uuid.uuid4().hex
        request = {
            "environment": {processes.MARK: f"{os.environ.get(processes.MARK, '')} {mark}"},
            "arguments": ["-x", "-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:nbval", *tests],
        }
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
        child = self.process.stdout.readline()
        if child:  # else the server has ended
            late = not select.select([self.process.stdout], [], [], timeout)[0]
            processes.end(mark, int(child) if late else None)
        code = self.process.stdout.readline()
        self.log.seek(0)
        printed = self.log.read().decode(errors="replace")
        self.log.seek(0)  # the server's place in the file too: the next run writes from here
        self.log.truncate()
        if not code:
            raise Unusable(f"pytest cannot be run in {self.copy}:\n{printed[-3000:]}")
        return None if late else int(code), printed

    def seconds(self, tests: Sequence[str]) -> float:
        """How long ``tests`` take without any fault. Unusable unless they pass."""
        began = time.monotonic()
        code, printed = self.pytest(tests)
        if code:
            raise Unusable(f"the tests must pass without any fault; they say\n{printed[-3000:]}")
        return time.monotonic() - began

    def first_failure(self, fault: Fault) -> tuple[str, float]:
        """The test that notices ``fault``, or "" if none does, and seconds; the copy is left as it was."""
        began = time.monotonic()
        path = self.copy / fault.file
        sound = path.read_text()
        path.write_text(fault.apply(sound))
        try:
            code, printed = self.pytest(fault.tests, TIMEOUT)
        finally:
            path.write_text(sound)
        if not code:
            return "", time.monotonic() - began
        if not (failed := re.search(r"^FAILED (.+?)(?: - |$)", printed, re.M)):
            # A module that no longer imports would stop any suite: that proves nothing.
            raise Unusable(f"fault {fault.name!r} broke pytest itself:\n{printed[-3000:]}")
        return failed[1].removeprefix("tests/"), time.monotonic() - began


def each(ask: Callable, servers: Sequence[Server], items: Sequence, told: str) -> Iterator[tuple]:
    """(item, ``ask(server, item)``) in the order of ``items``, on whichever server is idle."""
    idle: SimpleQueue[Server] = SimpleQueue()
    for server in servers:
        idle.put(server)

    def one(item):
        server = idle.get()
        try:
            return ask(server, item)
        finally:
            idle.put(server)

    with ThreadPoolExecutor(len(servers)) as pool:
        answers = track(pool.map(one, items), told, len(items), console=Console(stderr=True))
        yield from zip(items, answers, strict=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", nargs="?", default="", help="only faults whose name contains this")
    parser.add_argument("--tests-pass", action="store_true", help="known: do not run them without a fault")
    given = parser.parse_args(arguments)
    name = given.name
    faults = [fault for fault in FAULTS if name.lower() in fault.name.lower()]
    if not faults:
        parser.error(f"NAME must be part of one of {'; '.join(f.name for f in FAULTS)}. Got {name!r}")
    caught: dict[Fault, tuple[str, float]] = {}
    try:
        for fault in faults:
            fault.apply((ROOT / fault.file).read_text())
        with contextlib.ExitStack() as stack:
            copies = [stack.enter_context(project_copy()) for _ in range(min(JOBS, len(faults)))]
            servers = [stack.enter_context(pytest_server(copy)) for copy in copies]
            tests = list(dict.fromkeys(fault.tests for fault in faults))
            seconds = dict.fromkeys(tests, 0.0)
            if not given.tests_pass:
                seconds |= dict(each(Server.seconds, servers, tests, "running the tests"))
            slowest_first = sorted(faults, key=lambda fault: -seconds[fault.tests])
            for fault, answer in each(Server.first_failure, servers, slowest_first, "planting faults"):
                caught[fault] = answer
    except (Unusable, subprocess.SubprocessError) as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    finally:
        show(caught)
    survived = sum(not test for test, _ in caught.values())
    print(f"{len(faults) - survived} of {len(faults)} faults caught")
    return 1 if survived else 0


def show(caught: dict[Fault, tuple[str, float]]) -> None:
    """Print which test caught each fault, in the order of ``FAULTS``."""
    table = Table("fault", "caught by", "seconds")
    for fault in filter(caught.__contains__, FAULTS):
        test, seconds = caught[fault]
        table.add_row(fault.name, test.replace("[", r"\[") or "[bold red]SURVIVED", f"{seconds:.1f}")
    if table.row_count:
        Console(width=None if sys.stdout.isatty() else 170).print(table)


if __name__ == "__main__":
    sys.exit(main())
