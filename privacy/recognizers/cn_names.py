"""Chinese names without a cue: a segmenter's guess, sifted by surname, given-name signs and what stands around it.

Guarantee: pure function of the text; the segmenter's dictionary is the installed package's, nothing is downloaded.
Assumption: a name is a surname of the closed list and one or two more signs (two or three after a double surname); a
transliterated foreign name is parts joined by `·`.
Not covered: names whose surname is not on the list; names that are words too (高峰, 文静) where nothing speaks for a person.
Source: jieba 0.42 (MIT), part-of-speech `nr`.
"""

from __future__ import annotations

import importlib.util
import re
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from privacy.errors import EnvironmentFault
from privacy.findings import Finding
from privacy.recognizers.cn import DOUBLE_SURNAMES, NOT_NAMES, SURNAMES
from privacy.recognizers.view import view_of

VERSION = "1"
_REASON = "no checksum in a name; the segmenter calls it one and the surname lexicon agrees"
_HAN_RUN = re.compile(r"[\u4e00-\u9fff·]{2,}")
_FOREIGN = re.compile(r"[\u4e00-\u9fff]{1,8}(?:·[\u4e00-\u9fff]{1,8}){1,3}")
_TITLE = re.compile(
    r"(?:先生|女士|小姐|太太|同学|老师|教授|博士|医生|律师|经理|总监|主任|董事|总裁|董事长|院士|工程师|师傅|同志|阿姨|叔叔)"
)
_CUE = re.compile(
    r"(?:我叫|叫做|名叫|姓名|联系人|收件人|收货人|同事|朋友|客户|老师|医生|经理|主任|教授|先生|女士"
    r"|[、,:;。(\"“]|\A|\s)\Z"
)
_CONTEXT = 6
# Signs that end no given name: function words and measure words that the segmenter glues on.
_NEVER_LAST = frozenset(
    "的了在是和与及或也都就不没有把被给让对向从到于之等们这那个些为以能会要想请问吗呢吧啊呀省市区县镇乡村路街号楼室岁年月日时元股"
)
# A name that opens a line or a clause, with the person's sex or title right after it.
_RARE = frozenset(
    "喻符荣吉桑蒲农边寿权麦单褚尚利蓝庾盖暨衡步都满弘匡国寇广禄阙东隆师巩厍聂晁勾敖融冷訾辛阚那简饶空曾沙养鞠须丰巢关蒯相查荆红"
    "游竺逯益桓公仝苑苟代奚荀羊於惠甄家封芮羿储靳汲邴糜井富巫乌焦巴弓牧隗谷车侯宓蓬郗班仰秋仲伊宫寻冼闻占植楚仇鄢佟甫青揭阎迟麻池"
    "古原楼续由但么才达"
)
_GENDERED = re.compile(
    r"(?:(?<=[\s,;:。、(\"“])|\A)([\u4e00-\u9fff]{2,4})"
    r"(?=[\s,:、(]{0,2}(?:男|女)(?:[,、。;)\s]|性|\Z)|(?:先生|女士|小姐)(?:[,:、。;\s(]|\Z))"
)
_COMPANY = re.compile(
    r"[\u4e00-\u9fff()]{0,10}?(?:公司|集团|股份|有限|事务所|制药|药业|电缆|科技|实业|控股|光电|生物|新材|电子|银行|证券|保险"
    r"|地图|软件|平台|商城|超市|酒店|餐厅|快递|广场|大厦|小区|医院|大学|学院|中学|小学|研究院|研究所|厂)"
)
_SERVES = re.compile(r"[年月今曾出历兼担现起后前,;、。]\Z")
_ODD_FLAGS = ("ng", "nr", "nrt", "zg", "ag", "vg", "x", "g")  # a sign that stands for no word of its own
_LOCK = threading.Lock()


class ChineseNames:
    """Names in texts with Han characters; the segmenter is loaded at the first text that needs it.

    Raises EnvironmentFault E-DETECT-009 when it is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("jieba") is None:
            raise EnvironmentFault(
                "E-DETECT-009", "the segmenter of Chinese text is not installed", "Install the pinned dependencies (make setup)"
            )

    @property
    def facts(self) -> list[str]:
        """For the detector's version."""
        from importlib.metadata import version

        return ["cn_names", VERSION, version("jieba")]

    def read(self, texts: Sequence[str]) -> list[list[Finding]]:
        """Candidates of each text; offsets are of the original."""
        found: list[list[Finding]] = []
        for text in texts:
            view = view_of(text)
            spans = _names(view.text) if view.han else []
            found.append(
                [
                    Finding(*view.original(start, end), "PERSON", score, "cn_person_segment", VERSION, _REASON)
                    for start, end, score in spans
                ]
            )
        return found


def _names(text: str) -> list[tuple[int, int, float]]:
    spans: list[tuple[int, int, float]] = [(*m.span(), 0.6) for m in _FOREIGN.finditer(text) if len(m.group()) > 4]
    for match in _GENDERED.finditer(text):
        if _gendered(match.group(1)):
            spans.append((*match.span(1), 0.7))
    for run in _HAN_RUN.finditer(text):
        words = _segments(run.group())
        position = run.start()
        for index, (word, flag) in enumerate(words):
            start, end = position, position + len(word)
            position = end
            if flag.startswith("nr") and not any(a < end and start < b for a, b, _ in spans):
                span = _whole(text, start, end, words, index)
                if span is not None:
                    spans.append(span)
    return spans


def _gendered(value: str) -> bool:
    if value[:2] in DOUBLE_SURNAMES:
        return 3 <= len(value) <= 4
    return len(value) <= 3 and (value[0] in SURNAMES or value[0] in _RARE) and not NOT_NAMES.search(value)


def _whole(text: str, start: int, end: int, words: Sequence[tuple[str, str]], index: int) -> tuple[int, int, float] | None:
    """The name that the segmenter's word belongs to: a lone surname takes the sign or two after it."""
    value = text[start:end]
    head = 2 if value[:2] in DOUBLE_SURNAMES else 1
    if value[:head] not in (DOUBLE_SURNAMES if head == 2 else SURNAMES):
        return None
    following = words[index + 1][0] if index + 1 < len(words) else ""
    if len(value) == head:
        if not 1 <= len(following) <= 2 or following[-1] in _NEVER_LAST or _TITLE.match(following):
            return None
        end += len(following)
    elif len(value) == head + 1 and len(following) == 1 and words[index + 1][1] in _ODD_FLAGS and following not in _NEVER_LAST:
        end += 1
    elif head == 2 and len(value) == 3 and index + 2 == len(words) and following not in _NEVER_LAST and len(following) == 1:
        end += 1  # four signs with a double surname, up to the next mark
    value = text[start:end]
    if len(value) > head + 2 or value[-1] in _NEVER_LAST or value[0] == value[1] or NOT_NAMES.search(value):
        return None
    if _COMPANY.match(text, end) or (value[0] == "任" and _SERVES.search(text, max(0, start - 1), start)):
        return None
    titled = _TITLE.match(text, end) is not None
    cued = _CUE.search(text, max(0, start - _CONTEXT), start) is not None
    return start, end, 0.65 if titled or cued else 0.5


def _segments(run: str) -> list[tuple[str, str]]:
    with _LOCK:  # the segmenter fills its tables when first used
        return [(pair.word, pair.flag) for pair in _segmenter().cut(run)]


@lru_cache(maxsize=1)
def _segmenter() -> Any:
    import logging

    import jieba

    jieba.setLogLevel(logging.ERROR)
    import jieba.posseg

    return jieba.posseg
