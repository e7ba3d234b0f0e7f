"""Notes, checkpoints, cosignatures and proofs against published examples, and against whoever changes a byte of them."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.checkpoint import (
    COSIGNATURE,
    Checkpoint,
    Note,
    TlogProof,
    Verifier,
    WitnessRequest,
    cosign,
    cosignatures,
    merged,
    open_checkpoint,
    open_note,
    sign_checkpoint,
    sign_note,
)
from privacy.errors import IntegrityError
from privacy.merkle import Tree, leaf_hash
from privacy.signing import SigningKey, verify_signature

# From the documentation of golang.org/x/mod/sumdb/note, the first implementation of the format.
GO_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_LINE = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
ENOCH_KEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
ENOCH_LINE = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
# From c2sp.org/signed-note.
SPEC_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
# From c2sp.org/tlog-cosignature: a checkpoint with a log's line and a witness's.
SPEC_CHECKPOINT = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
# A working witness's key, as github.com/transparency-dev/formats tests it.
COSIGNER_KEY = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"

KEY, OTHER, WITNESS = SigningKey(b"k" * 32), SigningKey(b"o" * 32), SigningKey(b"w" * 32)
ORIGIN = "privet.dev/journal/test"
LOG = Verifier(ORIGIN, KEY.public_hex)
W1 = Verifier("witness.example/w1", WITNESS.public_hex, COSIGNATURE)
ROOT = hashlib.sha256(b"root").digest()


def signed(size: int = 7, root: bytes = ROOT) -> str:
    return sign_checkpoint(ORIGIN, size, root, KEY).note


def test_the_published_keys_and_notes_verify() -> None:
    for text in (GO_KEY, ENOCH_KEY, SPEC_KEY, COSIGNER_KEY):
        assert Verifier.from_text(text).to_text() == text
    assert Verifier.from_text(COSIGNER_KEY).kind == COSIGNATURE
    assert open_note(SPEC_NOTE, Verifier.from_text(SPEC_KEY)).text == "This is an example message.\n"
    both = f"{GO_TEXT}\n{GO_LINE}{ENOCH_LINE}"
    for text in (GO_KEY, ENOCH_KEY):
        assert open_note(both, Verifier.from_text(text)).text == GO_TEXT
    with pytest.raises(IntegrityError, match="E-NOTE-003"):
        open_note(both, Verifier.from_text(SPEC_KEY))


def test_our_signature_is_the_published_one_byte_for_byte() -> None:
    assert sign_note(GO_TEXT, "PeterNeumann", SigningKey(GO_SEED)) == f"{GO_TEXT}\n{GO_LINE}"


def test_the_published_checkpoint_is_read_as_the_specification_says() -> None:
    checkpoint = Checkpoint.parse(SPEC_CHECKPOINT)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    note = Note.parse(SPEC_CHECKPOINT)
    assert note.format() == SPEC_CHECKPOINT
    assert int.from_bytes(note.signatures[1].data[:8], "big") == 1679315147  # the time that the specification prints
    assert len(note.signatures[1].data) == 72


def test_a_cosignature_signs_the_message_of_the_specification() -> None:
    note = cosign(signed(), W1.name, WITNESS, 1679315147)
    line = Note.parse(note).signatures[1]
    assert line.key_id == hashlib.sha256(b"witness.example/w1\n\x04" + bytes.fromhex(WITNESS.public_hex)).digest()[:4]
    assert line.data[:8] == bytes.fromhex("00000000641850cb")
    message = f"cosignature/v1\ntime 1679315147\n{ORIGIN}\n7\n{base64.b64encode(ROOT).decode()}\n"
    assert verify_signature(WITNESS.public_hex, line.data[8:], message.encode())
    assert cosignatures(note, [W1]) == {W1.name: 1679315147}
    assert open_checkpoint(note, LOG).size == 7


def test_only_the_witness_one_knows_counts() -> None:
    note = cosign(cosign(signed(), "another.example/w", OTHER, 5), W1.name, OTHER, 6)  # W1's name, another key
    assert cosignatures(note, [W1]) == {}
    assert cosignatures(cosign(note, W1.name, WITNESS, 9), [W1]) == {W1.name: 9}
    # The log's own kind of signature, made by the witness's key under its name, is no cosignature.
    as_log = Note.parse(sign_note(Note.parse(note).text, W1.name, WITNESS))
    assert cosignatures(Note(as_log.text, as_log.signatures).format(), [W1]) == {}


def test_a_forged_line_of_a_known_key_spoils_the_note() -> None:
    good = Note.parse(cosign(signed(), W1.name, WITNESS, 9))
    for number, check in ((0, lambda n: open_checkpoint(n, LOG)), (1, lambda n: cosignatures(n, [W1]))):
        lines = list(good.signatures)
        for position in (0, 7, 8, len(lines[number].data) - 1):
            data = bytearray(good.signatures[number].data)
            data[position] ^= 1
            lines[number] = type(lines[number])(lines[number].name, lines[number].key_id, bytes(data))
            with pytest.raises(IntegrityError, match="E-NOTE-002"):
                check(Note(good.text, tuple(lines)).format())
        lines[number] = type(lines[number])(lines[number].name, lines[number].key_id, good.signatures[number].data[:-1])
        with pytest.raises(IntegrityError, match="E-NOTE-002"):
            check(Note(good.text, tuple(lines)).format())


def test_a_checkpoint_is_of_its_own_log_only() -> None:
    assert open_checkpoint(signed(), LOG).root_digest == "sha256:" + ROOT.hex()
    for verifier in (Verifier(ORIGIN, OTHER.public_hex), Verifier("privet.dev/journal/x", KEY.public_hex)):
        with pytest.raises(IntegrityError, match="E-NOTE-003"):
            open_checkpoint(signed(), verifier)
    stolen = sign_note(Note.parse(signed()).text, "privet.dev/journal/x", KEY)  # our key vouches for another origin line
    with pytest.raises(IntegrityError, match="E-NOTE-003"):
        open_checkpoint(stolen, Verifier("privet.dev/journal/x", KEY.public_hex))


B64 = base64.b64encode(ROOT).decode()


@pytest.mark.parametrize(
    "body",
    [
        f"{ORIGIN}\n7\n", f"{ORIGIN}\n07\n{B64}\n", f"{ORIGIN}\n-1\n{B64}\n", f"{ORIGIN}\n7 \n{B64}\n", f"{ORIGIN}\n٧\n{B64}\n",
        f"\n7\n{B64}\n", f"{ORIGIN}\n7\n{B64[:-4]}\n", f"{ORIGIN}\n7\n{B64[:-2]}==\n", f"{ORIGIN}\n{'9' * 30}\n{B64}\n",
        f"{ORIGIN}\n7\n{B64}\n\nmore\n", f"{ORIGIN}\n7\n {B64}\n",
    ],
)  # fmt: skip
def test_a_signed_note_that_is_no_checkpoint_is_refused(body: str) -> None:
    with pytest.raises(IntegrityError, match="E-NOTE-001"):
        open_checkpoint(sign_note(body, ORIGIN, KEY), LOG)


def test_extension_lines_are_signed_and_passed_over() -> None:
    note = sign_note(f"{ORIGIN}\n7\n{B64}\nmore\n", ORIGIN, KEY)
    assert open_checkpoint(note, LOG).size == 7
    with pytest.raises(IntegrityError, match="E-NOTE-002"):
        open_checkpoint(note.replace("more", "less"), LOG)


@pytest.mark.parametrize(
    "note",
    [
        "", "\n", "text\n", "text\n\n", GO_TEXT + GO_LINE, f"{GO_TEXT}\n{GO_LINE[:-1]}", f"{GO_TEXT}\n{GO_LINE}\n",
        f"{GO_TEXT}\n-{GO_LINE[1:]}", f"{GO_TEXT}\n{GO_LINE.replace(' x0', '  x0')}",
        f"{GO_TEXT}\n{GO_LINE.replace('AM=', 'AN=')}",
        f"{GO_TEXT}\x01\n{GO_LINE}", f"{GO_TEXT}\r\n{GO_LINE}", f"{GO_TEXT}\n— a+b AAAAAAAA\n", f"{GO_TEXT}\n— a AAAA\n",
        f"{GO_TEXT}\n— a\u00a0b AAAAAAAA\n", f"{GO_TEXT}\n" + GO_LINE * 65, "x" * (1 << 18) + f"\n\n{GO_LINE}",
    ],
)  # fmt: skip
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(IntegrityError, match="E-NOTE-001"):
        Note.parse(note)


def test_sixteen_signatures_and_an_empty_line_in_the_text_are_fine() -> None:
    note = sign_note("a\n\nb\n", ORIGIN, KEY)
    for number in range(15):
        note = cosign(note, f"w{number}.example", OTHER, number)
    assert open_note(note, LOG).text == "a\n\nb\n"


@pytest.mark.parametrize("text", ["", "a", "a+b", "a+00000000+AAAA", GO_KEY[:-1], GO_KEY.replace("c74f20a3", "c74f20a4"),
                                  GO_KEY.replace("Peter", "Pet er"), "+c74f20a3+" + GO_KEY.split("+", 2)[2]])  # fmt: skip
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError, match="E-NOTE-001"):
        Verifier.from_text(text)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_byte_of_a_checkpoint_is_free(data: st.DataObject) -> None:
    note = signed()
    position = data.draw(st.integers(0, len(note) - 1))
    changed = note[:position] + data.draw(st.characters(exclude_characters=note[position])) + note[position + 1 :]
    with pytest.raises(IntegrityError, match=r"E-NOTE-00[123]"):
        open_checkpoint(changed, LOG)


def test_lines_of_two_notes_are_joined_when_they_say_the_same() -> None:
    second = Verifier("witness.example/w2", OTHER.public_hex, COSIGNATURE)
    one, two = cosign(signed(), W1.name, WITNESS, 9), cosign(signed(), second.name, OTHER, 8)
    joined = merged(merged(one, two), cosign(signed(), W1.name, WITNESS, 11))
    assert cosignatures(joined, [W1, second]) == {W1.name: 11, second.name: 8}
    assert len(Note.parse(joined).signatures) == 3
    with pytest.raises(IntegrityError, match="E-NOTE-001"):
        merged(one, signed(8))


@pytest.fixture(scope="module")
def tree() -> Tree:
    made = Tree()
    made.extend([leaf_hash(b"%d" % n) for n in range(9)])
    return made


def test_a_tlog_proof_has_the_published_form_and_proves_one_leaf(tree: Tree) -> None:
    note = sign_checkpoint(ORIGIN, 9, tree.root(9), KEY).note
    for extra in (None, b"what is it"):
        proof = TlogProof(5, tree.inclusion_proof(5, 9), note, extra)
        text = proof.format()
        assert TlogProof.parse(text) == proof
        lines = text.split("\n")
        assert lines[0] == "c2sp.org/tlog-proof@v1"
        assert lines[1 if extra is None else 2] == "index 5"
        assert text.endswith("\n\n" + note)
        assert proof.verify(b"5", LOG).size == 9
        for leaf in (b"4", b"", b"55"):
            with pytest.raises(IntegrityError, match="E-NOTE-004"):
                proof.verify(leaf, LOG)
        with pytest.raises(IntegrityError, match="E-NOTE-003"):
            proof.verify(b"5", Verifier(ORIGIN, OTHER.public_hex))
    with pytest.raises(IntegrityError, match="E-NOTE-004"):
        TlogProof(4, tree.inclusion_proof(5, 9), note).verify(b"5", LOG)


def test_the_proof_of_the_only_leaf_is_empty() -> None:
    only = leaf_hash(b"x")
    proof = TlogProof(0, (), sign_checkpoint(ORIGIN, 1, only, KEY).note)
    assert TlogProof.parse(proof.format()).verify(b"x", LOG).root == only


@pytest.mark.parametrize("change", [
    ("@v1", "@v2"), ("index 5", "index 05"), ("index 5", "indexx 5"), ("index 5", "index"), ("index 5\n", ""), ("\n\n", "\n"),
    ("index 5\n", "index 5\nAAAA\n"), ("index 5\n", "index 5\n" + f"{B64}\n" * 64), ("index 5", "extra AA\nindex 5"),
])  # fmt: skip
def test_a_malformed_proof_is_refused(tree: Tree, change: tuple[str, str]) -> None:
    text = TlogProof(5, tree.inclusion_proof(5, 9), sign_checkpoint(ORIGIN, 9, tree.root(9), KEY).note).format()
    with pytest.raises(IntegrityError, match="E-NOTE-001"):
        TlogProof.parse(text.replace(*change))


def test_a_request_to_a_witness_comes_back_as_it_was(tree: Tree) -> None:
    request = WitnessRequest(4, tree.consistency_proof(4, 9), signed(9, tree.root(9)))
    assert WitnessRequest.parse(request.format()) == request
    assert request.format().startswith("old 4\n")
    empty = WitnessRequest(0, (), signed(9, tree.root(9)))
    assert WitnessRequest.parse(empty.format()) == empty
    for bad in ("old 4", "old 04\n\nx", "new 4\n\nx", "old 4\nAA\n\nx"):
        with pytest.raises(IntegrityError, match="E-NOTE-001"):
            WitnessRequest.parse(bad)


@pytest.mark.parametrize("time", [-1, 1 << 63])
def test_a_time_out_of_range_is_not_signed(time: int) -> None:
    with pytest.raises(IntegrityError, match="E-NOTE-001"):
        cosign(signed(), W1.name, WITNESS, time)
