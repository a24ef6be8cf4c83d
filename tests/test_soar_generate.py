"""generate and `labkit decode` on tiny checkpoints with tokenizers made here; ids are written by hand."""

import json
import re

import pytest
import torch
from test_soar_block_diffusion import SDAR, tensors
from test_soar_models import DREAM, LLADA, dream_native, llada_tensors, write
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from labkit.__main__ import main
from labkit.paths import ROOT
from labkit.soar import decode, generate, generate_batch, load_model
from labkit.soar.generate import MASK
from labkit.soar.models.tokenizer import load_tokenizer
from labkit.traces import BeamTrace
from labkit.widgets.beam_tree import BeamTree

START, EOT, END, MASK_ID = 35, 36, 37, 38  # the added tokens of tokenizer.json
TOOL = 39  # the one that tokenizer_config.json alone may have
CONFIG = LLADA | {"eos_token_id": END, "pad_token_id": END, "mask_token_id": MASK_ID}
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "{{ '<|start|> ' + m['content'] + ' <|eot_id|> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>' }}{% endif %}"
)


def with_tokenizer(folder, **config):
    """``folder`` with a tokenizer of words w0 to w34, whose class would be remote code."""
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(35)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = ("<|start|>", "<|eot_id|>", "<|endoftext|>", "<|mdm_mask|>")
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["remote.OwnTokenizer", None]},
        "eos_token": "<|endoftext|>", "mask_token": "<|mdm_mask|>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(about | config))
    return folder


@pytest.fixture
def plain(tmp_path):
    """LLaDA without a chat template."""
    return load_model(with_tokenizer(write(tmp_path / "plain", CONFIG, llada_tensors())))


@pytest.fixture
def chat(tmp_path):
    """LLaDA with one."""
    return load_model(llada_folder(tmp_path / "chat"))


def writes(model, start, tokens, surest_first=range(99)):
    """Make ``model`` say ``tokens`` from position ``start`` on, in this order of confidence."""
    logits = torch.zeros(model.max_length, 40)
    for rank, offset in zip(range(len(tokens)), surest_first, strict=False):
        logits[start + offset, tokens[offset]] = 9.0 - rank / 2
    model.logits_at = lambda rows, where, lengths=None: logits[where].clone()


def generated(trace):
    start = int(trace.prompt_length[0])
    return trace.sequences[0, start : start + 8].tolist()


def words(tokens):
    kept = []
    for token in tokens:
        if token in (EOT, END):
            break
        kept += [f"w{token}"] if token < 35 else []
    return " ".join(kept)


@pytest.mark.parametrize("strategy", ["greedy", "soar"])
def test_text_is_the_prompt_as_it_stands_where_there_is_no_template(plain, strategy):
    options = {"gen_length": 8, "block_length": 4, "beam": 3}
    found = generate(plain, "w3 w4 <|eot_id|> w5", strategy, **options)
    trace = decode(plain, [[3, 4, EOT, 5]], strategy, **options)
    assert (found.trace.sequences == trace.sequences).all()
    assert found.text == words(generated(trace))
    assert found.seconds > 0


def test_text_and_messages_go_through_the_chat_template(chat):
    prompt = [START, 3, 4, EOT, START]
    assert generate(chat, "w3 w4", gen_length=8).trace.sequences[0, :5].tolist() == prompt
    turns = [("user", "w3 w4"), ("assistant", "w6"), ("user", "w7")]
    messages = [{"role": role, "content": content} for role, content in turns]
    found = generate(chat, messages, "pbs", gen_length=8)
    prompt = [START, 3, 4, EOT, START, 6, EOT, START, 7, EOT, START]
    trace = decode(chat, [prompt], "pbs", gen_length=8)
    assert (found.trace.sequences == trace.sequences).all()
    assert found.text == words(generated(trace))


def test_messages_without_a_template_and_other_questions_are_refused_in_one_line(plain, chat):
    messages = [{"role": "user", "content": "w1"}]
    with pytest.raises(ValueError, match="question must be text: the model's tokenizer has no chat templ"):
        generate(plain, messages)
    for question in ("", " ", [], [{"role": "user"}], [{"role": "user", "content": 3}], 7):
        blank = isinstance(question, str)
        allowed = "text that is not blank; got" if blank else "text, or chat messages"
        with pytest.raises(ValueError, match=f"question must be {allowed}"):
            generate(chat, question)
    with pytest.raises(ValueError, match="suit the model's chat template, which says: no tools"):
        generate(chat, [{"role": "tool", "content": "w1"}])
    with pytest.raises(ValueError, match="question must be without the model's mask, token 38; got 'w1 <"):
        generate(plain, "w1 <|mdm_mask|> w2")
    with pytest.raises(ValueError, match="question must be text of whole characters; got"):
        generate(plain, "caf\udce9")  # what Python makes of a byte that is not UTF-8
    with pytest.raises(ValueError, match="questions must be a list"):
        generate_batch(chat, "w1 w2")
    for stop in ("", ["a", ""], [3], None):
        with pytest.raises(ValueError, match="stop must be a string or a list of strings"):
            generate(plain, "w1", stop=stop)
    with pytest.raises(ValueError, match="gen_length must be an integer >= 1; got 0"):
        generate(plain, "w1", gen_length=0)
    with pytest.raises(
        ValueError, match="gen_length must be at most 31, .* max_length=32 .* prompt of 1; got 128"
    ):
        generate(plain, "w1")
    for model in (
        load_model("lab/sudoku9"),
        load_model("lab/sudoku9", fixed_rows=2),
        lambda tokens: tokens,
    ):
        with pytest.raises(ValueError, match="model must be one that reads text"):
            generate(model, "w1")


@pytest.mark.parametrize("end", [EOT, END])
def test_each_id_that_ends_a_text_ends_the_answer(plain, end):
    writes(plain, 2, [5, 6, end, 7, 7, 7, 7, 7])
    found = generate(plain, "w1 w2", "greedy", gen_length=8)
    assert (found.text, found.finish_reason, found.trace.calls[0]) == ("w5 w6", "stop", 3)
    writes(plain, 2, [5] * 8)
    found = generate(plain, "w1 w2", "greedy", gen_length=8)
    assert (found.text, found.finish_reason) == (" ".join(["w5"] * 8), "length")


@pytest.mark.parametrize("strategy", ["greedy", "pbs"])
def test_a_stop_string_cuts_the_text_and_ends_the_decode(plain, strategy):
    writes(plain, 2, [5, 6, 7, 8, 9, 5, 6, 7])
    one = {"gen_length": 8, "beam": 1}
    found = generate(plain, "w1 w2", strategy, stop=["w9", "w7"], **one)
    assert (found.text, found.finish_reason) == ("w5 w6 ", "stop")
    assert generated(found.trace) == [5, 6, 7, *[plain.eos_id] * 5]
    assert found.trace.calls[0] == 3
    assert generate(plain, "w1 w2", strategy, stop="6 w7 w8", **one).text == "w5 w"  # over several tokens
    whole = generate(plain, "w1 w2", strategy, stop=["w9", "w7"], eos_early_stop=False, **one)
    assert (whole.text, whole.trace.calls[0]) == ("w5 w6 ", 8)


def test_a_stop_string_behind_a_mask_does_not_end_anything(plain):
    writes(plain, 2, [5, 6, 7, 8, 9, 5, 6, 7], surest_first=[2, 4, 6, 1, 0, 3, 5, 7])
    found = generate(plain, "w1 w2", "greedy", gen_length=8, stop="w7")
    assert (found.text, found.trace.calls[0]) == ("w5 w6 ", 5)  # the fifth call fills the start
    assert generated(found.trace) == [5, 6, 7, plain.eos_id, 9, plain.eos_id, 6, plain.eos_id]


def test_a_stop_string_may_be_an_added_token(tmp_path):
    added = {str(TOOL): {"content": "<tool>", "special": True}}
    folder = with_tokenizer(write(tmp_path / "m", CONFIG, llada_tensors()), added_tokens_decoder=added)
    model = load_model(folder)
    assert model.tokenizer("w1 <|eot_id|><tool>")["input_ids"] == [1, EOT, TOOL]
    writes(model, 1, [5, 6, TOOL, 8, 8, 8, 8, 8])
    found = generate(model, "w1", "greedy", gen_length=8, stop="<tool>")
    assert (found.text, found.trace.calls[0]) == ("w5 w6", 3)
    assert generate(model, "w1", "greedy", gen_length=4).text == "w5 w6 w8"


def test_a_batch_is_answered_as_each_of_its_questions(plain):
    questions = ["w1 w2", "w3", "w4 w5 w6 w7"]
    options = {"strategy": "soar", "gen_length": 8, "threshold": 0.2, "stop": ["w1", "w2", "w3"]}
    together = generate_batch(plain, questions, batch_size=2, **options)
    for question, found in zip(questions, together, strict=True):
        alone = generate(plain, question, **options)
        assert (found.text, found.finish_reason) == (alone.text, alone.finish_reason)
        assert generated(found.trace) == generated(alone.trace)
        assert found.trace.meta["question"] == question


def test_who_watches_sees_the_text_fill_in(plain):
    writes(plain, 2, [5, 6, 7, EOT, 8, 8], surest_first=[3, 1, 0, 2, 4, 5])
    seen = []
    found = generate(plain, "w1 w2", "greedy", gen_length=6, watch=seen.append)
    assert seen == [MASK * 3, f"{MASK}w6{MASK}", f"w5 w6{MASK}", "w5 w6 w7"]
    assert found.text == seen[-1]
    told = []
    generate_batch(plain, ["w1 w2", "w3 w4"], "greedy", gen_length=6, watch=lambda *it: told.append(it))
    assert told == [(number, text) for text in seen for number in (0, 1)]


def test_the_beam_tree_opens_a_kept_trace_with_the_texts_of_its_tokens(plain, tmp_path):
    found = generate(plain, "w3 w4", "pbs", gen_length=8, stop=["w1"])
    trace = BeamTrace.load(found.trace.save(tmp_path / "trace.npz"))
    tree = BeamTree(
        trace, None, compare=None, prompt=0, truth=None, side=None, vocabulary=None
    )  # fmt: skip
    names = {START: "<|start|>", EOT: "<|eot_id|>", END: "<|endoftext|>", MASK_ID: "<|mdm_mask|>", TOOL: ""}
    assert {"3", "4", "38"} <= tree.texts.keys()
    assert tree.texts == {token: names.get(int(token), f"w{token}") for token in tree.texts}
    assert trace.meta["text"] == found.text
    assert (trace.meta["stop"], trace.meta["question"]) == (["w1"], "w3 w4")


def llada_folder(where, **config):
    folder = write(where, CONFIG | config, llada_tensors())
    return with_tokenizer(folder, chat_template=TEMPLATE)


def dream_folder(where, **config):
    """Dream: vocab.json and merges.txt, its own tokenizer class, added tokens in two files."""
    folder = write(where, DREAM | config, dict(dream_native().state_dict()))
    letters = {"a": 0, "b": 1, "ab": 2, "Ċ": 3, "u": 4} | {f"<{i}>": i for i in range(5, 36)}
    (folder / "vocab.json").write_text(json.dumps(letters))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    names = {"36": "<|im_start|>", "37": "<|im_end|>", "38": "<|endoftext|>", "39": "<|mask|>"}
    about = {
        "tokenizer_class": "DreamTokenizer", "auto_map": {"AutoTokenizer": ["remote.DreamTokenizer", None]},
        "added_tokens_decoder": {
            number: {"content": name, "special": True} for number, name in names.items()
        },
        "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "mask_token": "<|mask|>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{{ '<|im_start|>a\\n' }}"
    )
    return folder


def sdar_folder(where, **config):
    """SDAR: the mask is the tokenizer's, as its generate.py has it."""
    config = SDAR | {"mask_token_id": None, "eos_token_id": END} | config
    return with_tokenizer(write(where, config, tensors(SDAR)), chat_template=TEMPLATE)


def test_sdar_answers_block_by_block_with_the_mask_of_its_tokenizer(tmp_path):
    folder = sdar_folder(tmp_path / "sdar")
    plain, cached = load_model(folder), load_model(folder, cache="exact-block")
    assert (plain.mask_id, cached.mask_id, plain.eos_ids) == (MASK_ID, MASK_ID, (END, EOT))
    found = generate(cached, "w3 w4 w5", "soar", gen_length=8)
    trace = decode(plain, [[START, 3, 4, 5, EOT, START]], "soar", gen_length=8, block_length=4)
    assert (found.trace.sequences == trace.sequences).all()
    assert found.text == words(trace.sequences[0, 6:].tolist())
    (folder / "tokenizer_config.json").write_text("{}")
    config = json.loads((folder / "config.json").read_text())
    with pytest.raises(ValueError, match="mask_token_id in config.json must be an integer .*; got None"):
        load_model(folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    for token in vocabulary["added_tokens"]:
        token["content"] = token["content"].replace("<|mdm_mask|>", "<|MASK|>")  # SDAR's name for it
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))
    assert load_model(folder).mask_id == MASK_ID
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": MASK_ID}))
    with pytest.raises(ValueError, match="the id of the mask token must be an integer between 0 and 37"):
        load_model(folder)


def test_dream_reads_its_vocabulary_its_added_tokens_and_its_template(tmp_path):
    model = load_model(dream_folder(tmp_path / "dream"))
    found = generate(model, "abba", "soar", gen_length=8)
    prompt = [36, 2, 1, 0, 37, 3, 36, 0, 3]
    trace = decode(model, [prompt], "soar", gen_length=8)
    assert (found.trace.sequences == trace.sequences).all()
    assert model.eos_ids == (38, 37)
    tokens = generated(trace)
    kept = tokens[: next((i for i, token in enumerate(tokens) if token in (37, 38)), 8)]
    letters = {0: "a", 1: "b", 2: "ab", 3: "\n", 4: "u"}
    shown = "".join(letters.get(token, f"<{token}>") for token in kept if token != 36)
    assert found.text == shown
    assert load_model(tmp_path / "dream", cache="approximate-dual").tokenizer("ab")["input_ids"] == [2]


def test_added_tokens_have_the_ids_they_ask_for_behind_a_gap_too(tmp_path):
    folder = dream_folder(tmp_path / "dream")
    about = json.loads((folder / "tokenizer_config.json").read_text())
    about["added_tokens_decoder"] |= {"300": {"content": "<|far|>", "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    tokenizer = load_tokenizer(folder)
    assert tokenizer("ab<|far|>a<|im_end|>")["input_ids"] == [2, 300, 0, 37]
    assert tokenizer.decode([2, 300, 0], skip_special_tokens=True) == "aba"
    about["added_tokens_decoder"] |= {"3": {"content": "<|taken|>", "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="added_tokens_decoder .* must be in agreement .*<.taken.>': 3"):
        load_tokenizer(folder)


def test_a_folder_without_a_readable_tokenizer_is_refused(tmp_path):
    folder = write(tmp_path / "llada", CONFIG, llada_tensors())
    with pytest.raises(ValueError, match="name must be a folder with tokenizer.json, or vocab.json and"):
        generate(load_model(folder), "w1")
    (folder / "tokenizer.json").write_text("{broken")
    with pytest.raises(ValueError, match="name must hold a tokenizer that can be read"):
        load_tokenizer(folder)
    moved = {"3": {"content": "<tool>", "special": True}}
    with pytest.raises(ValueError, match="added_tokens_decoder .* must be in agreement .*; got .*: 3}"):
        load_tokenizer(with_tokenizer(folder, added_tokens_decoder=moved))


def test_the_command_shows_the_text_filling_in_and_keeps_the_trace(plain, tmp_path, capsys):
    kept = tmp_path / "kept.npz"
    words = ["w1 w2", "--strategy", "greedy", "--gen-length", "8", "--stop", "w3", "--device", "cpu"]
    assert main(["decode", "--model", str(plain.folder), *words, "--output", str(kept)]) == 0
    shown = capsys.readouterr().out
    found = generate(plain, "w1 w2", "greedy", gen_length=8, stop="w3")
    trace = BeamTrace.load(kept)
    assert (trace.sequences == found.trace.sequences).all()
    calls = int(found.trace.calls[0])
    numbers = [int(number) for number in re.findall(r"^call (\d+): ", shown, re.M)]
    assert numbers == [number for number in (1, 2, 4, 8) if number <= calls]
    assert f"\n{found.text}\n" in shown
    assert re.search(rf"^{calls} forward calls, {calls} rows, \d+\.\d\d s, ended by ", shown, re.M)


def test_the_labs_own_models_answer_by_the_command_or_are_refused_in_one_line(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path))
    assert main(["decode", "--model", "lab/sums", "12+30+5", "--device", "cpu"]) == 0
    assert "\n12+30=42;42+5=47;A47\n" in capsys.readouterr().out
    assert (tmp_path / "decode" / "trace.npz").exists()
    for words, told in (
        (
            ["lab/sudoku9", "1"],
            "model must be one that reads text (a LLaDA, Dream or SDAR folder, lab/gsm, ...)",
        ),
        (["lab/sums", "12+34+5"], "must be an integer between 1 and 30; got 34"),
        (["lab/sums", "twelve"], "question must be 3 numbers from 1 to 30 like 12+30+5; got 'twelve'"),
        (["lab/sums", "1+2+3", "--strategy", "best"], "strategy must be one of 'greedy'"),
        (["lab/sums", "1+2+3", "--output", "trace.json"], "--output must be a file that ends in .npz"),
        ([str(tmp_path / "nowhere"), "1"], "--model must be a folder that exists"),
        (["lab/nope", "1"], "--model must be one of 'lab/sudoku9', "),
    ):
        assert main(["decode", "--model", *words, "--device", "cpu"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("labkit decode: ")
        assert told in error
        assert error.count("\n") == 1


def test_an_output_that_cannot_be_written_is_told_before_a_model_is_read(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.npz").mkdir()
    for output, told in (
        (tmp_path / "file" / "x.npz", f"'{tmp_path / 'file'}'"),
        (tmp_path / "folder.npz", "--output must be a file that ends in .npz; got "),
    ):
        assert main(["decode", "1", "--model", str(tmp_path / "gone"), "--output", str(output)]) == 2
        assert told in capsys.readouterr().err  # not that there is no model


@pytest.mark.parametrize(
    ("made", "name", "length"),
    [
        (llada_folder, "LLaDA", "max_sequence_length"),
        (dream_folder, "LLaDA", "max_position_embeddings"),
        (sdar_folder, "SDAR", "max_position_embeddings"),
    ],
    ids=["LLaDA", "Dream", "SDAR"],
)
def test_the_newcomers_lines_of_the_readme_work_as_they_stand(
    made, name, length, tmp_path, monkeypatch, capsys
):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    block = next(block for block in blocks if "generate(" in block and f"checkpoints/{name}" in block)
    folder = re.search(r'load_model\("([^"]+)"', block)[1]
    (tmp_path / folder).parent.mkdir(parents=True)
    made(tmp_path / folder, **{length: 256})
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block, names)
    assert len([line for line in block.splitlines() if line]) <= 6
    assert names["answer"].text.strip() in capsys.readouterr().out
    assert "answer.npz" not in block or len(BeamTrace.load(tmp_path / "answer.npz").beam_step)
