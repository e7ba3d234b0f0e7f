"""Words that surrogates are built from: invented given and family names, and Chinese names with rare two-sign family names.

Guarantee: every word is spelled by exactly one position of its table, so a surrogate can be read back to its number; the
order of a table is part of the format, so it never changes. No word is an English word or one of the names that the
recognizers know (a test holds that). Made up for this project; from no data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_GIVEN_HEADS = _words(
    "Ald And Bel Ber Bri Cal Cas Cor Dal Dar Del Dor Ed El Em Er Fal Fen Fin Gal Ger Gil Hal Har Hel Il Ir Jal Jar "
    "Jol Kal Kel Kor Lan Lar Len Lor Mal Mar Mel Mer Nal Ner Nol Or Os Pal Per Quin Ral Ren Ril Ros Sal Sel Ser Tal "
    "Tam Ter Ul Val Ver Wen Zan"
)
_GIVEN_TAILS = _words(
    "bivo brena brilo cavia cesh corvi davo delph dirra dovi drema duvin fenra fisto fovia freyo gavin gesta gimo "
    "govra grila hava hesko hivra jeno jista kevra kimbo kova kresi lavri lembo livia lomri mavo mespi mirro movek "
    "nembi nivra noska pavri pelvo pirrin prova quilo rembo risko rovia sembra sivo sovri stelo tavra tembi tirvo "
    "tovan trelia vembo vesta vilko wembri wisko zembi"
)
_FAMILY_HEADS = _words(
    "Ash Bar Bex Bren Cald Cam Col Dray Dun Elm Fair Fal Gar Glen Hart Haz Kes Lang Lind Mor Nor Pen Pres Quar Rav "
    "Sil Stan Thorn Tren Ul Wes Yar"
)
_FAMILY_MIDDLES = _words(
    "abel adel aken amor andel avin ebro edin elor embel endra erin esken evor iban idel iken imor indel isken ival "
    "oben odel oken omer ondel orin osken oval uden umel urin"
)
_FAMILY_TAILS = _words(
    "bourne brook bury combe croft dale den fell field ford gate grove ham hope hurst leigh mere mont more ridge "
    "shaw stead stoke stone thorpe ton wade ward well wick wood worth"
)

HAN_FAMILY = _words(
    "澹台 闾丘 公冶 宗政 梁丘 淳于 太叔 申屠 仲孙 轩辕 令狐 钟离 宇文 长孙 鲜于 赫连 "
    "皇甫 尉迟 公羊 万俟 亓官 司寇 呼延 左丘 拓跋 夹谷 谷梁 段干 颛孙 端木 巫马 漆雕"
)
HAN_GIVEN = (
    "清远川屿岚汀澄砚珩琅璟瑾瑜瓒舒苓芷茗荻莞菡萱葳蓁蔚蕴薇蘅衡谦逸遥"
    "郁铮锦雍霖霏靖韬韵颂骁骞鸢鸾鹭麒黛攸旻昀昕昱晏晟曜朔栩桓梓棠楷榆"
)


@lru_cache(maxsize=1)
def given_names() -> tuple[str, ...]:
    """4096 invented given names."""
    return tuple(head + tail for head in _GIVEN_HEADS for tail in _GIVEN_TAILS)


@lru_cache(maxsize=1)
def family_names() -> tuple[str, ...]:
    """32768 invented family names; streets and towns are named after them, too."""
    return tuple(h + m + t for h in _FAMILY_HEADS for m in _FAMILY_MIDDLES for t in _FAMILY_TAILS)


@lru_cache(maxsize=2)
def numbered(which: str) -> Mapping[str, int]:
    """Lower-case word to its number; which: `given` or `family`."""
    words = given_names() if which == "given" else family_names()
    return {word.lower(): number for number, word in enumerate(words)}
