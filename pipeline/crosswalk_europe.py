"""Crosswalk rows: GDPR, the EDPB's DPIA template, the EU AI Act. See `pipeline.crosswalk.parsed` for the columns."""

from __future__ import annotations

from typing import Final

from pipeline.crosswalk import Source, parsed

_GDPR = """
Art. 5(1)(a)|lawful, fair, transparent|合法、公正、透明|lifecycle.lawful_basis claim.epsilon|The lawful basis is the controller's; this page makes the processing visible.|合法性基础由控制者负责；本页使处理透明。
Art. 5(1)(b)|purposes are specified and kept to|目的明确并受限|identity.purpose decisions.gate_use decisions.approval_*
Art. 5(1)(c)|no more data than needed|数据最小化|personal-data.treatment claim.max_records_per_unit personal-data.entities
Art. 5(1)(d)|accurate data|数据准确|verdict:validation? lifecycle.validation_*
Art. 5(1)(e)|kept no longer than needed|存储限制|lifecycle.vault lifecycle.protected lifecycle.quarantine lifecycle.raw
Art. 5(1)(f)|integrity and confidentiality|完整性与保密性|lifecycle.key_epochs lifecycle.access_log verify.checkpoint_root
Art. 5(2)|be able to show all of it|问责|verify.checkpoint_root identity.policy_digest decisions.gate_release
Art. 17|erase on request, in models as well|按请求删除，包括模型|lifecycle.erased_records lifecycle.erased_copies lifecycle.deletion_proof?|privet erase gives a signed receipt and names the models.|privet erase 给出签名回执并列出模型。
Art. 25(1)|protection by design|设计中的数据保护|claim.epsilon verdict:probe.noise_scale verdict:audit.ledger_match personal-data.treatment
Art. 25(2)|protection by default|默认的数据保护|personal-data.outputs_scores personal-data.outputs_embeddings personal-data.outputs_min_subjects
Art. 30(1)|records of processing: who, why, whose data, how long|处理活动记录|identity.controller identity.purpose identity.dataset lifecycle.vault lifecycle.protected
Art. 30(1)(d)|categories of recipients|接收方类别|
Art. 30(1)(e)|transfers to third countries|向第三国传输|
Art. 32(1)(a)|pseudonymise and encrypt|假名化与加密|personal-data.treatment lifecycle.key_epochs
Art. 32(1)(b)|lasting confidentiality and integrity|持续的保密性与完整性|verify.checkpoint_root verdict:audit.output_scan lifecycle.access_log
Art. 32(1)(d)|test and evaluate the measures regularly|定期测试与评估措施|verdict:audit.epsilon_lower_bound verdict:audit.output_scan personal-data.miss_bound audit.membership.*?
Art. 35(7)(a)|describe the processing systematically|系统描述处理|identity.purpose lifecycle.source claim.released
Art. 35(7)(b)|necessity and proportionality|必要性与相称性|utility.holdout_accuracy claim.epsilon|Figures to weigh; the weighing is the controller's.|供权衡的数值；权衡由控制者作出。
Art. 35(7)(c)|risks to people|对个人的风险|decisions.open_risks personal-data.miss_bound audit.lower_bound_* utility.groups*?
Art. 35(7)(d)|measures against the risks|应对风险的措施|claim.epsilon personal-data.treatment verdict:audit.output_scan decisions.reapproval
"""
_EDPB = """
Section 0|who is responsible, what triggered the assessment, which standards were used|责任方、触发原因、所用标准|identity.controller identity.policy identity.requested_by
Section 1|systematic description: data, purposes, flows, assets|系统描述：数据、目的、流向、资产|identity.purpose lifecycle.source lifecycle.source_format identity.tools identity.result_protect
Lawfulness, minimisation, retention, quality|legal bases, data minimisation, retention, quality|合法性基础、最小化、留存、质量|lifecycle.lawful_basis personal-data.treatment lifecycle.vault lifecycle.validation_*
Rights, design and default, security|rights of people, protection by design and by default, security|权利、设计与默认保护、安全|lifecycle.erased_copies claim.epsilon lifecycle.key_epochs
Necessity and proportionality|could less do the same?|更少的数据能否达到同样目的|utility.holdout_accuracy utility.majority_accuracy claim.epsilon
Risks inherent in the design, and by accident or attack|risks by source, likelihood and severity|按来源、可能性与严重性评估风险|decisions.open_risks personal-data.miss_bound audit.lower_bound_* audit.membership.*? utility.groups*?
Action plan and residual risk|further measures, and what is left|进一步措施与剩余风险|decisions.reapproval audit.report_level personal-data.validate_residual_pii
Advice of the DPO, views of data subjects|written down, with reasons|书面记录并说明理由|decisions.approval_*|Signatures and reasons at the use gate; views of data subjects are not recorded.|使用闸门的签名与理由；不记录数据主体的意见。
Outcome|approve, approve with conditions, reject, refer to the authority|批准、附条件批准、否决、提交监管机构|decisions.gate_use decisions.gate_release decisions.rejections|The gate's states are these four.|闸门的状态即这四种。
"""
_AI_ACT = """
Annex IV(1)|general description: purpose, versions, what it needs|总体描述：目的、版本、依赖|identity.purpose identity.code_version identity.tools
Annex IV(2)(b)|design: what is optimised, main choices|设计：优化目标与主要选择|claim.mechanism claim.noise_multiplier claim.clipping_norm identity.policy_digest
Annex IV(2)(d)|data: origin, selection, labelling, cleaning|数据：来源、选择、标注、清洗|lifecycle.source personal-data.treatment lifecycle.validation_* lifecycle.ingest_*
Annex IV(2)(e)|human oversight|人工监督|decisions.gate_use decisions.gate_release decisions.approval_*
Annex IV(2)(g)|validation and testing: metrics, bias, logs|验证与测试：指标、偏差、日志|utility.holdout_accuracy utility.groups*? verdict:audit.utility
Annex IV(2)(h)|cybersecurity|网络安全|lifecycle.key_epochs identity.lockfile verify.checkpoint_root
Annex IV(3)|abilities and limits, accuracy for groups|能力与局限、分组准确率|utility.holdout_accuracy utility.groups*
Annex IV(5)|risk management (Art. 9)|风险管理（第 9 条）|decisions.open_risks decisions.reapproval
Annex IV(6)|changes over the lifecycle|生命周期内的变更|identity.run identity.policy_digest verify.checkpoint_root
Annex IV(8)|EU declaration of conformity|欧盟符合性声明|
Annex IV(9)|plan for monitoring after release|上市后监测计划|
Art. 10(2)-(5)|data governance, examination for bias|数据治理与偏差审查|lifecycle.validation_* personal-data.treatment utility.groups*
Art. 11|technical documentation, kept current|技术文档，保持更新|identity.policy_digest verify.checkpoint_root
Art. 12|logs over the lifetime|全程日志|verify.checkpoint_size verify.checkpoint_root
Training-content summary 1|general information: provider, model, size of the data|一般信息：提供者、模型、数据规模|identity.controller identity.model_digest personal-data.records
Training-content summary 2|list of the data sources|数据来源清单|lifecycle.source lifecycle.source_format claim.pretrained|Sources by digest; names of public sources belong into the policy's purpose.|来源以摘要表示；公开来源的名称应写入策略目的。
Training-content summary 3|processing: rights reserved, illegal content removed|处理：权利保留与违法内容移除|
"""
SOURCES: Final[tuple[Source, ...]] = (
    parsed("gdpr", "GDPR, Articles 5, 17, 25, 30, 32, 35", "GDPR 第 5、17、25、30、32、35 条", _GDPR),
    parsed("edpb-dpia", "EDPB template for impact assessments, version 1.0, sections 0 to 6 (from section 2 on by theme)", "EDPB 数据保护影响评估模板 1.0 版，第 0 至 6 节（自第 2 节起按主题）", _EDPB),
    parsed("eu-ai-act", "EU AI Act: Annex IV, Articles 10 to 12, training-content summary", "欧盟人工智能法：附件四、第 10 至 12 条、训练内容摘要", _AI_ACT),
)  # fmt: skip
