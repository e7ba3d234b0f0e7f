"""Chinese identifiers, names and addresses: works on text without word breaks and without a language model.

Numbers carry their national checksums. Names need a cue word and a surname of the lexicon; a name alone in a sentence is
not found, and that is the main known gap.
"""

from __future__ import annotations

from datetime import date

from privacy.recognizers.numbers import DATE
from privacy.recognizers.spec import HAN, RIGHT, Candidate, Recognizer, compiled, luhn
from privacy.recognizers.view import word_set

_SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜"
    "范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜倪严牛温芦季俞章鲁葛伍"
    "韦申尤毕聂丛焦向柳邢路岳齐沿梅莫庄辛管祝左涂谷祁时舒耿牟卜詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍位覃霍翁隋植甘景薄单"
    "包司柏宁柯阮桂闵解强柴华车冉房边净阴闫佘肖"
)
_DOUBLE = "欧阳|司马|上官|诸葛|东方|皇甫|尉迟|公孙|慕容|令狐|司徒|长孙|夏侯|端木"
_PROVINCES = (
    "北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建"
    "|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州|云南|陕西|甘肃|青海|台湾"
    "|内蒙古|广西|西藏|宁夏|新疆|香港|澳门"
)
_AFTER_NAME = (
    r"(?=[^" + HAN + r"]|$|手机|电话|身份|证件|的|是|在|我|想|要|先生|女士|小姐|号码|联系|住"
    r"|地址|邮箱|订单|账|卡|请|您|你|和|与|尾号|麻烦|能|可以|密码|出生|生日"
    r"|已|于|说|来|去|,|。)"
)
_NAME = (
    r"((?:"
    + _DOUBLE
    + r"|["
    + _SURNAMES
    + r"])["
    + HAN
    + r"·]{1,2}?"
    + _AFTER_NAME
    + r"|(?:"
    + _DOUBLE
    + r"|["
    + _SURNAMES
    + r"])["
    + HAN
    + r"]{2})"
)
NOT_NAMES = compiled(
    r"^(?:车牌|高兴|何时|何种|常见|方便|安全|成功|时间|时候|任何|文件"
    r"|包裹|包含|单号|单独|强制|解决|关于|向您|严重|温馨|金额|管理|项目"
    r"|路由|白色|全部|华为|查询|查看|查一|成为|于是|易碎|边上|盛大|万一"
    r"|武汉|安徽|江苏|江西|石家庄|马上|毛病|宁波|周[一二三四五六日末])"
)
_REGIONS = word_set(  # province codes of GB/T 2260
    "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83 91"
)
# Registering departments of GB 32100 and the kinds of bodies that each registers.
_USCC_KINDS = {
    "1": "1239", "2": "19", "3": "123459", "4": "19", "5": "1239", "6": "129", "7": "129", "8": "19", "9": "123", "A": "19",
    "N": "1239", "Y": "1",
}  # fmt: skip
# Prefixes that the ministry has given to operators; the others of 1[3-9] are counters.
_USCC_CUE = compiled(r"uscc|credit[_ -]?code|社会信用|信用代码|税号|tax|统一")
# Where `_uscc` can say yes: departments and provinces that exist. Of the block numbers of a file system few look like one.
_USCC_NEAR = compiled(
    r"(?<![0-9A-Za-z])(?:"
    + "|".join(f"{sign}[{kinds}]" for sign, kinds in _USCC_KINDS.items())
    + ")(?:"
    + "|".join(sorted({*_REGIONS, "10", "00"}))
    + r")[0-9]{4}[0-9A-HJ-NP-RTUWXY]{10}(?![0-9A-Za-z])",
    ignore_case=False,
)
SURNAMES = frozenset(_SURNAMES)
DOUBLE_SURNAMES = frozenset(_DOUBLE.split("|"))
_CARD_KEY = compiled(r"card|bank|pan|acc(?:oun)?t|卡")
_MOBILE = compiled(r"(?:13[0-9]|14[014-9]|15[0-35-9]|16[2567]|17[0-8]|18[0-9]|19[0-35-9])")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_USCC_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_GAP = r"[\s:=#,\"'\\]{0,6}"  # a key may be quoted, and quoted again inside a quoted text
_NUMBER = _GAP + r"(?:号码|编号|号|后四位|尾号|末四位|ID|id)?" + _GAP + r"(?:是|为|:)?" + _GAP


def resident_id_valid(text: str) -> bool:
    """GB 11643-1999: ISO 7064 mod 11-2 over 17 digits, a province that exists and a date of birth that exists."""
    if len(text) != 18 or not text[:17].isdigit() or text[:2] not in _REGIONS:
        return False
    try:
        born = date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    total = sum(int(c) * w for c, w in zip(text[:17], _WEIGHTS, strict=True))
    return 1890 <= born.year <= 2100 and "10X98765432"[total % 11] == text[17].upper()


def uscc_valid(text: str) -> bool:
    """GB 32100-2015: mod 31 with weights 3^i, a registering department and a province that exist."""
    if len(text) != 18 or any(c not in _USCC_ALPHABET for c in text):
        return False
    if text[1] not in _USCC_KINDS.get(text[0], "") or (text[2:4] not in _REGIONS and text[2:4] not in ("10", "00")):
        return False
    total = sum(_USCC_ALPHABET.index(c) * pow(3, i, 31) for i, c in enumerate(text[:17]))
    return _USCC_ALPHABET[-total % 31] == text[17]


def _resident_id(found: Candidate) -> float:
    return 1.0 if resident_id_valid(found.value.replace(" ", "").replace("-", "")) else 0.0


def _uscc(found: Candidate) -> float:
    # Long counters are digits alone; of the codes without a letter only those of firms go without a cue.
    firm = found.value[:2] in ("91", "92", "93") and not found.joined() and not (found.log and found.counted())
    if found.value.isdigit() and not firm and not _USCC_CUE.search(found.before(32)):
        return 0.0
    return 0.98 if uscc_valid(found.value.upper()) else 0.0


def _bank_card(found: Candidate) -> float:
    if found.log and (found.joined() or found.counted()) and not _CARD_KEY.search(found.before(32)):
        return 0.0
    return 0.99 if luhn(found.digits) else 0.0  # below the resident id, whose checksum and date say more


def _mobile(found: Candidate) -> float:
    value = found.value.removeprefix("+").removeprefix("86").lstrip(" -")
    if not _MOBILE.match(value):
        return 0.0
    return 0.0 if found.log and (found.joined() or found.counted()) else 0.9


def _person(found: Candidate) -> float:
    return 0.0 if NOT_NAMES.search(found.value) else 0.75


def _trim_address(found: Candidate) -> tuple[int, int] | None:
    """The greedy left side swallows the sentence before the address; cut after the last word that introduces one."""
    cues = list(
        compiled(r"地址|住址|住在|寄到|寄往|送到|送至|发到|改成|改为|换成|位于|搬到|家在|是|在|为|到|至|[:,。;]").finditer(
            found.value
        )
    )
    kept = [m.end() for m in cues if found.end - found.start - m.end() >= 4 and m.end() <= 24]
    start = found.start + (kept[-1] if kept else 0)
    return (start, found.end) if start < found.end else None


def _cued(name: str, entity: str, cue: str, token: str, words: tuple[str, ...], score: float = 0.8) -> Recognizer:
    return Recognizer(
        name,
        entity,
        compiled(r"(?:" + cue + r")" + _NUMBER + r"(" + token + r")" + RIGHT),
        score,
        "no checksum: the issuer numbers as it likes; the cue word decides",
        group=1,
        words=words,
        han=True,
    )


CHINESE: tuple[Recognizer, ...] = (
    Recognizer(
        "cn_resident_id",
        "CN_RESIDENT_ID",
        compiled(r"(?<![0-9A-Za-z])[1-9][0-9]{5}[ -]?(?:18|19|20)[0-9]{6}[ -]?[0-9]{3}[0-9X](?![0-9A-Za-z])"),
        1.0,
        "ISO 7064 mod 11-2, a province and a date of birth that exist",
        check=_resident_id,
        digits=17,
    ),
    _cued("cn_resident_id_cue", "CN_RESIDENT_ID", "身份证|证件", r"[0-9]{3,17}[0-9Xx]", ("身份证", "证件"), 0.72),
    Recognizer(
        "cn_uscc",
        "CN_USCC",
        compiled(r"(?<![0-9A-Za-z])[1-9ANY][1-9A-F][0-9]{6}[0-9A-HJ-NP-RTUWXY]{10}(?![0-9A-Za-z])", ignore_case=False),
        0.98,
        "GB 32100 mod 31, a registering department and a province that exist",
        check=_uscc,
        digits=8,
        near=(_USCC_NEAR,),
    ),
    Recognizer(
        "cn_bank_card",
        "CN_BANK_CARD",
        compiled(
            r"(?<![0-9A-Za-z])(?:62|81)(?:[0-9]{14,17}|[0-9]{2}(?:(?: [0-9]{4}){3}(?: [0-9]{1,3})?"
            r"|(?:-[0-9]{4}){3}(?:-[0-9]{1,3})?))"
            r"(?![0-9A-Za-z])"
        ),
        1.0,
        "UnionPay prefix, length and Luhn",
        check=_bank_card,
        digits=16,
    ),
    _cued(
        "cn_bank_card_cue", "CN_BANK_CARD", "银行卡|储蓄卡|信用卡|借记卡|卡号|卡", r"[0-9](?:[ -]?[0-9]){3,18}", ("卡",), 0.72
    ),
    Recognizer(
        "cn_mobile",
        "PHONE_NUMBER",
        compiled(r"(?<![0-9A-Za-z])(?:\+?86[ -]?)?1[3-9][0-9](?:[0-9]{8}|[ -][0-9]{4}[ -][0-9]{4})(?![0-9A-Za-z])"),
        0.9,
        "no checksum exists; operator prefix and eleven digits decide",
        check=_mobile,
        digits=11,
    ),
    Recognizer(
        "cn_landline",
        "PHONE_NUMBER",
        compiled(
            r"(?<![0-9A-Za-z_.-])(?:\(0[1-9][0-9]{1,2}\) ?"
            r"|0[1-9][0-9]{1,2}[- ])[2-9][0-9]{6,7}(?:-[0-9]{1,5})?(?![0-9A-Za-z_-])"
        ),
        0.8,
        "no checksum exists; area code and seven or eight digits decide",
        digits=10,
    ),
    Recognizer(
        "cn_plate",
        "CN_LICENSE_PLATE",
        compiled(
            r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼使领][A-HJ-NP-Z]"
            r"[·.\- ]?(?=[A-Z0-9]{0,5}[0-9])[A-HJ-NP-Z0-9]{4,5}[A-HJ-NP-Z0-9挂学警港澳](?![0-9A-Za-z])"
        ),
        0.9,
        "no checksum exists; province character, letter and five or six signs (GA 36) decide",
        han=True,
        digits=1,
    ),
    Recognizer(
        "cn_person_cue",
        "PERSON",
        compiled(
            r"(?:我叫|我是|我的名字叫?|本人叫?|姓名|名字|联系人|收件人|收货人|寄件人|持卡人|开户人"
            r"|户名|申请人|投保人|乘客|患者|署名|称呼)[\s:]{0,3}(?:是|为|叫|改成|改为)?[\s:]{0,2}" + _NAME
        ),
        0.75,
        "no checksum in a name; cue word and surname lexicon decide",
        group=1,
        check=_person,
        han=True,
    ),
    Recognizer(
        "cn_person_title",
        "PERSON",
        compiled(
            r"(?<!["
            + HAN
            + r"])(?:(?:我姓|找|请|给|跟|叫)?)((?:"
            + _DOUBLE
            + r"|["
            + _SURNAMES
            + r"])["
            + HAN
            + r"]{0,2}?(?:先生|女士|小姐|太太))"
        ),
        0.65,
        "no checksum in a name; surname and title decide",
        group=1,
        check=_person,
        words=("先生", "女士", "小姐", "太太"),
        han=True,
    ),
    Recognizer(
        "cn_person_contact",
        "PERSON",
        compiled(
            r"(?<!["
            + HAN
            + r"])((?:"
            + _DOUBLE
            + r"|["
            + _SURNAMES
            + r"])["
            + HAN
            + r"]{1,2})(?=[\s,、:]{0,2}(?:\+?(?:86[ -]?)?1[3-9][0-9]{9}|[1-9][0-9]{16}[0-9Xx]))"
        ),
        0.7,
        "no checksum in a name; a surname and a number of a person right after it decide",
        group=1,
        check=_person,
        han=True,
    ),
    Recognizer(
        "cn_street_address",
        "ADDRESS",
        compiled(
            r"[" + HAN + r"0-9]{2,36}?(?:路|街|大道|巷|胡同|弄|村|道|园|苑|小区|花园|大厦"
            r"|广场)\s?[0-9A-Za-z]{1,6}(?:-[0-9]{1,5})?(?:号楼|号院|号|弄|栋|幢|座|室)"
            r"(?:[" + HAN + r"]{0,10}?[0-9A-Za-z-]{0,6}(?:号楼|栋|幢|单元|室|层|号|座|楼)){0,4}"
        ),
        0.8,
        "no checksum; road, number and their measure words decide",
        trim=_trim_address,
        words=("号", "弄", "栋", "幢", "座", "室"),
        han=True,
        digits=1,
    ),
    Recognizer(
        "cn_region",
        "LOCATION",
        compiled(
            r"(?:"
            + _PROVINCES
            + r")(?:省|市|自治区|特别行政区|壮族自治区|回族自治区|维吾尔自治区)?["
            + HAN
            + r"]{1,6}?(?:市|区|县|州|盟|旗)(?:["
            + HAN
            + r"]{1,6}?(?:区|县|镇|乡|街道|村))?"
        ),
        0.6,
        "no checksum; a province of the closed list with a city or district",
        han=True,
    ),
    _cued(
        "cn_order_cue",
        "ORDER_NUMBER",
        "订单|单号|运单|快递单|发票|工单|退款单|流水",
        r"[0-9A-Za-z]{0,6}-?[0-9][0-9A-Za-z-]{3,24}",
        ("单", "发票", "流水"),
    ),
    _cued(
        "cn_customer_cue",
        "CUSTOMER_NUMBER",
        "客户|会员|用户|工号|学号|病历",
        r"[0-9A-Za-z]{0,6}-?[0-9][0-9A-Za-z-]{2,24}",
        ("客户", "会员", "用户", "工号", "学号", "病历"),
    ),
    _cued(
        "cn_account_cue",
        "ACCOUNT_NUMBER",
        "账号|帐号|账户|帐户|尾号|后四位|末四位|社保|公积金",
        r"[0-9](?:[ -]?[0-9]){2,23}",
        ("号", "户", "位", "社保", "公积金"),
        0.7,
    ),
    _cued(
        "cn_username_cue",
        "USERNAME",
        "账号|帐号|用户名|登录名|微信|QQ|支付宝|昵称|抖音|微博",
        r"(?=[0-9A-Za-z_.@-]{0,40}[0-9_])[A-Za-z0-9_][0-9A-Za-z_.@-]{3,40}",
        ("号", "名", "微信", "qq", "支付宝", "昵称", "抖音", "微博"),
        0.68,
    ),
    _cued("cn_passport_cue", "PASSPORT_NUMBER", "护照|通行证", r"[A-Za-z]{1,2}[0-9]{7,8}|[0-9]{9}", ("护照", "通行证")),
    _cued("cn_password_cue", "PASSWORD", "密码|口令", r"[!#-+\-.-:=?-~]{4,64}", ("密码", "口令"), 0.8),
    _cued("cn_code_cue", "SECRET", "验证码|校验码|动态码|安全码", r"[0-9A-Za-z]{3,8}", ("码",), 0.85),
    _cued("cn_birth_cue", "DATE_OF_BIRTH", "出生日期|出生年月日?|生日|出生于", DATE, ("出生", "生日")),
    Recognizer(
        "cn_birth_after",
        "DATE_OF_BIRTH",
        compiled(r"(?<![0-9])((?:19|20)[0-9]{2}年[0-9]{1,2}月(?:[0-9]{1,2}[日号])?)(?:出生|生)"),
        0.8,
        "no checksum; the word for birth decides",
        group=1,
        words=("生",),
        han=True,
        digits=5,
    ),
    Recognizer(
        "cn_age",
        "AGE",
        compiled(r"(?<![0-9])([0-9]{1,3})(?=周?岁)"),
        0.7,
        "no checksum; the measure word decides",
        group=1,
        words=("岁",),
        digits=1,
    ),
)
