"""The lm-evaluation-harness class on a tiny LLaDA checkpoint: requests in, texts and likelihoods out."""

from types import SimpleNamespace

import pytest
import torch
from test_soar_generate import CONFIG, END, EOT, MASK_ID, START, TEMPLATE, sdar_folder, with_tokenizer
from test_soar_models import llada_tensors, write

from labkit.soar import decode, generate
from labkit.soar.likelihood import log_likelihoods

lm_eval = pytest.importorskip("lm_eval", reason="pip install labkit[eval]")

from lm_eval.api.model import CachingLM  # noqa: E402

from labkit.soar.harness import LabkitLM  # noqa: E402
from labkit.soar.harness_options import asked  # noqa: E402

NO_KWARGS: dict = {"until": []}


def request(*args):
    return SimpleNamespace(args=args)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return with_tokenizer(write(tmp_path_factory.mktemp("m") / "llada", CONFIG, llada_tensors()))


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory):
    made = write(tmp_path_factory.mktemp("c") / "chat", CONFIG, llada_tensors())
    return with_tokenizer(made, chat_template=TEMPLATE, bos_token="<|start|>")


def build(folder, **options):
    return LabkitLM(folder, **{"gen_length": 8, "block_length": 4, "device": "cpu", **options})


def ids(text):
    return [int(word[1:]) for word in text.split()]


def words(tokens):
    """What stands before the first end of text; the special tokens of the checkpoint are not shown."""
    kept = []
    for token in tokens:
        if token in (EOT, END):
            break
        kept += [f"w{token}"] if token < START else []
    return " ".join(kept)


def says(lm, start, tokens):
    """Make the model of ``lm`` want ``tokens`` from position ``start`` on, surest first left to right."""
    logits = torch.zeros(lm.max_length, 40)
    for rank, token in enumerate(tokens):
        logits[start + rank, token] = 9.0 - rank / 4
    lm.model.logits_at = lambda rows, where, lengths=None: logits[where].clone()


def test_it_generates_what_decode_generates(folder):
    lm = build(folder, strategy="pbs", beam=3, batch_size=2)
    contexts = ["w1 w2", "w3", "w4 w5 w6", "w1 w2"]
    answers = lm.generate_until([request(text, NO_KWARGS) for text in contexts])
    trace = decode(lm.model, [ids(text) for text in contexts], "pbs", gen_length=8, block_length=4, beam=3)
    wanted = [row[start : start + 8].tolist() for row, start in
              zip(trace.sequences, trace.prompt_length, strict=True)]  # fmt: skip
    assert answers == [words(tokens) for tokens in wanted]
    told = lm.get_model_info()
    assert told["forward_calls"] > 0 and told["forward_rows"] >= told["forward_calls"]  # noqa: PT018
    assert told["seconds"] > 0
    assert told["decode"]["strategy"] == "pbs"
    assert (told["decode"]["beam"], told["decode"]["gen_length"]) == (3, 8)


@pytest.mark.parametrize("strategy", ["greedy", "adaptive"])  # the second writes several at once
@pytest.mark.parametrize("most", [1, 3, 4, 6, 7])
def test_a_text_has_the_tokens_a_task_allows_and_blocks_need_not_divide_them(folder, most, strategy):
    lm = build(folder, strategy=strategy, gen_length=7)
    says(lm, 2, range(1, 31))
    (answer,) = lm.generate_until([request("w1 w2", {"max_gen_toks": most, "do_sample": False})])
    assert answer == " ".join(f"w{n}" for n in range(1, most + 1))
    (whole,) = lm.generate_until([request("w1 w2", NO_KWARGS)])
    assert len(whole.split()) == 7


def test_nothing_is_decoded_behind_the_last_token_or_a_stop_string(folder):
    lm = build(folder, strategy="greedy", gen_length=24, block_length=8)
    for kwargs, kept in (({"max_gen_toks": 9}, 9), ({"until": ["w4"]}, 3)):
        calls = 0
        says(lm, 2, range(1, 31))
        said = lm.model.logits_at

        def counted(*given, said=said):
            nonlocal calls
            calls += 1
            return said(*given)

        lm.model.logits_at = counted
        (answer,) = lm.generate_until([request("w1 w2", kwargs)])
        assert len(answer.split()) == kept
        assert calls <= 9


@pytest.mark.parametrize("stop", ["<|eot_id|>", "<|start|>", "w7"])
def test_a_stop_string_may_be_a_special_token(folder, stop):
    lm = build(folder, strategy="greedy")
    token = {"<|eot_id|>": EOT, "<|start|>": START, "w7": 7}[stop]
    says(lm, 2, [2, 3, token, 9, 4, 4, END, END])
    (answer,) = lm.generate_until([request("w5 w6", {"until": stop})])
    assert answer.strip() == "w2 w3"


def test_steps_of_a_shorter_text_are_in_proportion(folder):
    lm = build(folder, strategy="greedy", steps=4)
    long, short = lm.generate_until([request("w1", NO_KWARGS), request("w1", {"max_gen_toks": 4})])
    wanted = decode(lm.model, [[1]], "greedy", gen_length=4, block_length=4, steps=2)
    assert short == words(wanted.sequences[0, 1:5].tolist())
    assert isinstance(long, str)


def test_a_prompt_that_is_too_long_loses_its_start_and_an_empty_one_is_answered(folder):
    lm = build(folder, strategy="greedy")
    text = " ".join(f"w{i % 30 + 1}" for i in range(60))
    long, empty = lm.generate_until([request(text, NO_KWARGS), request("", NO_KWARGS)])
    (tail,) = lm.generate_until([request(" ".join(text.split()[-24:]), NO_KWARGS)])
    assert long == tail  # the model has 32 positions
    assert lm.get_model_info()["truncated_prompts"] == 1
    behind = decode(lm.model, [[END]], "greedy", gen_length=8, block_length=4).sequences[0, 1:9]
    assert empty == words(behind.tolist())


def test_a_request_may_ask_for_samples_which_its_seed_repeats(folder):
    sampled = {"do_sample": True, "temperature": 5.0}
    lm = build(folder, strategy="greedy")
    one, again, greedy = lm.generate_until(
        [request("w1", sampled), request("w1", sampled), request("w1", {"temperature": 0.0})]
    )
    assert len({one, again, greedy}) == 3  # copies of one request are other samples
    assert lm.generate_until([request("w1", sampled)]) == [one]
    assert build(folder, strategy="greedy", seed=1).generate_until([request("w1", sampled)]) != [one]
    hot = build(folder, strategy="greedy", temperature=5.0)
    assert hot.generate_until([request("w1", {"do_sample": False})]) == [greedy]
    assert hot.generate_until([request("w1", {})]) == [one]
    with pytest.raises(ValueError, match="generation_kwargs must be among until, .*; got 'num_beams'"):
        lm.generate_until([request("w1", {"num_beams": 4})])
    with pytest.raises(ValueError, match="max_gen_toks must be an integer >= 1; got 0"):
        lm.generate_until([request("w1", {"max_gen_toks": 0})])


def test_a_conversation_goes_through_the_checkpoints_template(folder, chat_folder):
    lm = build(chat_folder, strategy="greedy")
    messages = [{"role": "system", "content": "w1"}, {"role": "user", "content": "w3 w4"}]
    prompt = lm.apply_chat_template(messages)
    assert prompt == "<|start|> w1 <|eot_id|> <|start|> w3 w4 <|eot_id|> <|start|>"
    wanted = generate(lm.model, messages, "greedy", gen_length=8, block_length=4).text
    assert lm.generate_until([request(prompt, NO_KWARGS)]) == [wanted]
    assert lm.chat_template(True) == TEMPLATE
    assert str(chat_folder.name) in lm.tokenizer_name
    with pytest.raises(ValueError, match="must suit the model's chat template, which says: no tools"):
        lm.apply_chat_template([{"role": "tool", "content": "w1"}])
    with pytest.raises(ValueError, match="apply_chat_template must be left out: labkit found no chat"):
        build(folder).apply_chat_template(messages)


def test_bos_stands_in_front_once_where_it_is_asked_for(folder, chat_folder):
    lm = build(chat_folder, add_bos_token=True)
    assert lm.tok_encode("w3") == lm.tok_encode("<|start|> w3") == [START, 3]
    assert lm.tok_encode("w3", add_special_tokens=False) == [3]
    assert lm.prefix_token_id == START
    with pytest.raises(ValueError, match="add_bos_token must be False: the tokenizer has no BOS token"):
        build(folder, add_bos_token=True)


def test_a_likelihood_comes_with_what_greedy_decoding_says(folder):
    lm = build(folder, batch_size=3)
    greedy = decode(lm.model, [[1, 2]], "greedy", gen_length=2, eos_early_stop=False).sequences[0, 2:]
    best = " " + " ".join(lm.tokenizer.convert_ids_to_tokens(greedy.tolist()))
    answers = [" w3 w4", best, " w5", ""]
    found = lm.loglikelihood([request("w1 w2", answer) for answer in answers])
    tokens = [[3, 4], greedy.tolist(), [5], []]
    values = [one.value for one in log_likelihoods(lm.model, [([1, 2], answer) for answer in tokens])]
    assert [value for value, _ in found] == pytest.approx(values, abs=1e-5)
    assert [same for _, same in found][:2] == [False, True]
    assert found[3] == (0.0, True)
    assert lm.get_model_info()["loglikelihood"]["exact"] == 4
    unchecked = build(folder, check_greedy=False).loglikelihood([request("w1 w2", best)])
    assert unchecked == [(pytest.approx(values[1], abs=1e-5), False)]
    (alone,) = lm.loglikelihood([request("", "w3")])  # behind the end of a text, as TemplateLM has it
    assert alone[0] == pytest.approx(log_likelihoods(lm.model, [([END], [3])])[0].value, abs=1e-5)
    with pytest.raises(ValueError, match="continuation must be shorter than the model's 32 positions"):
        lm.loglikelihood([request("w1", " w2" * 40)])


def test_a_whole_text_is_scored_in_windows(folder):
    lm = build(folder, mc_num=4)
    text = [n % 30 for n in range(40)]  # the model has 32 positions
    (found,) = lm.loglikelihood_rolling([request(" ".join(f"w{n}" for n in text))])
    # lm_eval's windows: each token once; the last one is filled up with what stands before it.
    pairs = [([END], text[:31]), (text[8:31], text[31:])]
    wanted = sum(one.value for one in log_likelihoods(lm.model, pairs, mc_num=4))
    assert found == pytest.approx(wanted, abs=1e-4)


def test_answers_are_kept_as_they_come(folder, tmp_path, monkeypatch):
    lm = build(folder, strategy="greedy", batch_size=1)
    cached = CachingLM(lm, str(tmp_path / "cache.db"))
    contexts = [request(f"w{n}", NO_KWARGS) for n in range(1, 13)]
    texts, real, calls = lm._texts, lm._texts, []

    def dies(*given):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(given)
        return real(*given)

    monkeypatch.setattr(lm, "_texts", dies)
    with pytest.raises(KeyboardInterrupt):
        cached.generate_until(contexts)
    monkeypatch.setattr(lm, "_texts", texts)
    before = lm.get_model_info()["forward_calls"]
    answers = cached.generate_until(contexts)
    assert lm.get_model_info()["forward_calls"] < 2 * before  # eight of the twelve were there
    assert answers == lm.generate_until(contexts)


def test_auto_finds_the_rows_that_fit_and_the_batch_changes_no_answer(folder):
    def short_of_memory(lm):
        real = lm.model.logits_at

        def logits_at(rows, *rest):
            if rows.numel() > 9 * 28:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
            return real(rows, *rest)

        lm.model.logits_at = logits_at
        return lm

    texts = [" ".join([f"w{n}"] * length) for length in (20, 4) for n in range(1, 13)]
    contexts = [request(text, NO_KWARGS) for text in texts]  # 28 positions and 12
    options = {"strategy": "pbs", "beam": 2, "max_batch_size": 16}
    lm = short_of_memory(build(folder, batch_size="auto:2", **options))
    answers = lm.generate_until(contexts)
    assert list(lm.batch_sizes.values()) == [4, 8]
    assert answers == build(folder, batch_size=1, **options).generate_until(contexts)
    fixed = short_of_memory(build(folder, batch_size="16", **options))
    with pytest.raises(torch.OutOfMemoryError):
        fixed.generate_until(contexts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"stratgy": "pbs"},
            r"model_args must be among pretrained, .*; got 'stratgy' .did you mean 'strategy'",
        ),
        ({"trust_remote_code": True}, "model_args must be among pretrained, .*; got 'trust_remote_code'"),
        ({"strategy": "beam"}, "strategy must be one of .*; got 'beam'"),
        (
            {"gen_length": 29},
            "gen_length must be less than max_length=32, with its last block whole; got 29",
        ),
        ({"gen_length": "many"}, "gen_length must be an integer >= 1; got 'many'"),
        (
            {"batch_size": "automatic"},
            "batch_size must be an integer >= 1, 'auto' or 'auto:N'; got 'automatic'",
        ),
        ({"batch_size": 0}, "batch_size must be an integer >= 1; got 0"),
        ({"dtype": "int8"}, "dtype must be one of 'bfloat16', 'float16', 'float32'; got 'int8'"),
        ({"device": "gpu"}, "device must be cpu, cuda or cuda:N; got 'gpu'"),
        ({"mc_num": 0}, "mc_num must be an integer >= 1; got 0"),
        ({"check_greedy": "no"}, "check_greedy must be one of True, False; got 'no'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_refused_is_named(folder, options, message):
    with pytest.raises(ValueError, match=message):
        build(folder, **options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"do_sample": "false"}, "do_sample must be one of None, True, False; got 'false'"),
        ({"temperature": None}, "temperature must be a number >= 0; got None"),
    ],
)
def test_what_a_task_asks_amiss_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        asked(given, 64, {})


def test_a_folder_is_needed_and_a_tokenizer_in_it(tmp_path):
    with pytest.raises(
        ValueError, match="pretrained must be a folder or a checkpoint on the hub; got None"
    ):
        LabkitLM()
    bare = write(tmp_path / "bare", CONFIG, llada_tensors())
    with pytest.raises(ValueError, match="name must be a folder with tokenizer.json"):
        LabkitLM(bare)


def test_a_host_without_a_gpu_computes_on_its_cpu(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lm = build(folder, device="cuda:0")  # what lm_eval's command line always passes
    assert lm.device == torch.device("cpu")
    assert lm.get_model_info()["model_dtype"] == "float32"
    assert lm.model.mask_id == MASK_ID


@pytest.mark.parametrize("most", [8, 6, 3])
def test_blocks_are_the_models_own_where_its_attention_is_causal_over_them(tmp_path, most):
    folder = sdar_folder(tmp_path / "sdar")  # blocks of 4
    lm = LabkitLM(folder, gen_length=8, device="cpu", strategy="soar")
    (text,) = lm.generate_until([request("w3 w4 w5", {"until": [], "max_gen_toks": most})])
    prompt = lm.tok_encode("w3 w4 w5")
    trace = decode(lm.model, [prompt], "soar", gen_length=-(-most // 4) * 4, block_length=4)
    assert text == words(trace.sequences[0, len(prompt) :][:most].tolist())
    with pytest.raises(ValueError, match="block_length must be a divisor of 4"):
        LabkitLM(folder, gen_length=8, block_length=3, device="cpu")


def test_a_name_of_the_lab_is_as_good_as_a_folder():
    lm = build("lab/gsm")
    assert len(lm.generate_until([request("1+1=", NO_KWARGS)])) == 1
    with pytest.raises(ValueError, match="pretrained must be one of 'lab/gsm', .*; got 'lab/sums'"):
        build("lab/sums")


def test_answers_need_not_fill_the_blocks_of_causal_attention(tmp_path):
    lm = build(sdar_folder(tmp_path / "sdar"), block_length=None)  # blocks of 4
    says(lm, 2, [5, 6, 7, 8])
    found = lm.loglikelihood([request("w1 w2", text) for text in (" w5 w6 w7", " w5 w6 w8", " w5")])
    assert [same for _, same in found] == [True, False, True]
