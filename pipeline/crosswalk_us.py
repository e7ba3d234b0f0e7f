"""Crosswalk rows: NIST SP 800-226 and HIPAA's Safe Harbor. See `pipeline.crosswalk.parsed` for the columns."""

from __future__ import annotations

from typing import Final

from pipeline.crosswalk import SAFE_HARBOR, Source, parsed

_NIST = """
Pyramid, top: epsilon|state epsilon and delta, and delta against the population|说明 epsilon 与 delta，以及 delta 相对总体的大小|claim.epsilon claim.delta claim.delta_population verdict:audit.ledger_match
Pyramid, top: unit of privacy|state who or what is protected and how much one unit may contribute|说明保护的单位及单个单位最多贡献多少|claim.privacy_unit claim.max_records_per_unit claim.neighbouring_relation
Pyramid, middle: algorithms and their correctness|show that the implementation does what the claim says|证明实现与声明一致|verdict:probe.noise_scale verdict:probe.clipping verdict:probe.noise_independence verdict:probe.batch_size_law verdict:probe.participation_law verdict:probe.divisor verdict:probe.step_count verdict:probe.size_independence verdict:probe.rank_noise verdict:probe.accumulation verdict:audit.epsilon_lower_bound|Statistical tests of this very run; a lower bound is not a proof.|针对本次运行的统计检验；下界不是证明。
Pyramid, middle: accounting and composition|add up all uses of the data|累加对数据的所有使用|claim.spent claim.cap claim.accountant claim.second_accountant claim.runs
Pyramid, middle: utility|report what the noise costs|报告噪声的代价|utility.holdout_accuracy utility.majority_accuracy verdict:audit.utility
Pyramid, middle: bias|look for systemic, human and statistical bias between groups|检查组间的系统性、人为与统计偏差|utility.groups* verdict:audit.group_harm?
Pyramid, middle: trust model|say who sees the data before noise|说明谁在加噪前看到数据|claim.trust_model identity.holder_*
Pyramid, middle: mechanism for outputs|say what leaves, and what is published without noise|说明发布内容及未加噪公布的内容|claim.released claim.exact_outputs
Pyramid, bottom: security and access control|protect the data and the keys|保护数据与密钥|lifecycle.key_epochs lifecycle.access_log identity.holder_*
Pyramid, bottom: side channels and floating point|look at time, memory and floating-point effects|考虑时间、内存与浮点效应|claim.side_channels claim.randomness|Stated, not tested.|已说明，未测试。
Pyramid, bottom: data collection exposure|ask how the data came to be collected|了解数据如何被采集|
Hyper-parameter tuning|count what tuning cost|计入调参的代价|claim.search? claim.runs
Pre-processing|say what was fitted on the data outside the mechanism|说明在机制之外由数据拟合的内容|claim.outside_mechanism claim.pretrained
"""
SOURCES: Final[tuple[Source, ...]] = (
    parsed("nist-800-226", "NIST SP 800-226: evaluating differential privacy guarantees", "NIST SP 800-226：差分隐私保证的评估", _NIST),
    Source(
        SAFE_HARBOR,
        parsed(SAFE_HARBOR, "HIPAA Safe Harbor, 45 CFR 164.514(b)(2)", "HIPAA Safe Harbor，45 CFR 164.514(b)(2)", "").title,
        (),
    ),
)  # fmt: skip
