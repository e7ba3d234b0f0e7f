"""Crosswalk rows: PIPL and the two national standards for generative AI. See `pipeline.crosswalk.parsed` for the columns."""

from __future__ import annotations

from typing import Final

from pipeline.crosswalk import Source, parsed

_PIPL = """
Art. 6|clear purpose, least data|目的明确、最小必要|identity.purpose personal-data.treatment claim.max_records_per_unit
Art. 7|openness of the rules|公开处理规则|identity.policy_digest claim.epsilon
Art. 8|quality of the data|数据质量|lifecycle.validation_*
Art. 13|lawful basis, consent|合法性基础、同意|lifecycle.lawful_basis
Art. 19|shortest retention needed|最短必要留存|lifecycle.vault lifecycle.protected lifecycle.quarantine
Art. 24|fair automated decisions|自动化决策公平|utility.groups* verdict:audit.group_harm?
Art. 38-40|transfers out of the country|向境外提供|
Art. 47|deletion|删除|lifecycle.erased_records lifecycle.erased_copies lifecycle.deletion_proof?
Art. 51|encryption, de-identification, access rights, training of staff|加密、去标识化、权限、人员培训|personal-data.treatment lifecycle.key_epochs identity.holder_*|Training of staff is not covered.|不涵盖人员培训。
Art. 54|regular audits|定期审计|verdict:audit.epsilon_lower_bound verdict:audit.output_scan verify.checkpoint_root
Art. 55-56|impact assessment: purpose, influence and risks, measures; kept three years|影响评估：目的、影响与风险、措施；保存三年|identity.purpose decisions.open_risks claim.epsilon personal-data.treatment
"""
_SERVICE = """
Training data: sources|check sources before and after collection, keep them traceable|采集前后核验来源并可追溯|lifecycle.source lifecycle.validation_*
Training data: personal information|consent, or another legal ground, for personal information in the data|数据中的个人信息须有同意或其他合法依据|lifecycle.lawful_basis personal-data.treatment personal-data.entities
Training data: content|filter illegal and harmful content|过滤违法不良内容|
Annotation|rules, staff and checks of annotation|标注规则、人员与核验|
Model: outputs|assess what the model writes, keep out personal information|评估生成内容并防止泄露个人信息|verdict:audit.output_scan personal-data.redaction* audit.memorisation*?
Model: security|test for backdoors, leaks and attacks|测试后门、泄漏与攻击|audit.membership.*? audit.membership_asked verdict:audit.epsilon_lower_bound
Model: updates|assess again after important changes|重要变更后重新评估|decisions.reapproval
Service: minors, users' rights, complaints|protect minors, take complaints|保护未成年人、受理投诉|
Bias|no discrimination by origin, sex, age, health ...|防止民族、性别、年龄、健康等歧视|utility.groups* utility.swaps*? verdict:audit.group_harm?
"""
_DATA = """
General: classification and access|classify data, control access, keep logs|数据分类、访问控制与日志|lifecycle.access_log lifecycle.key_epochs identity.holder_*
Pre-training data: collection|trace and check sources|来源可追溯并核验|lifecycle.source claim.pretrained
Pre-training data: pre-processing|remove or de-identify personal information, keep quality|去除或去标识化个人信息，保证质量|personal-data.treatment personal-data.miss_bound lifecycle.validation_*
Pre-training data: use|isolated, encrypted, traceable use|隔离、加密、可追溯使用|lifecycle.key_epochs verify.checkpoint_root claim.spent
Fine-tuning data|the same for data that tunes a model|优化训练数据的同样要求|personal-data.treatment lifecycle.validation_* claim.epsilon
Evaluation|test the safeguards and write the result down|测试措施并记录结果|verdict:audit.output_scan verdict:audit.epsilon_lower_bound personal-data.miss_bound
Deletion|destroy data that is no longer needed|销毁不再需要的数据|lifecycle.raw lifecycle.vault lifecycle.protected
"""
SOURCES: Final[tuple[Source, ...]] = (
    parsed("pipl", "Personal Information Protection Law of China (PIPL)", "中华人民共和国个人信息保护法", _PIPL),
    parsed("gbt-45654", "GB/T 45654-2025: basic security requirements for generative AI services", "GB/T 45654-2025：生成式人工智能服务安全基本要求", _SERVICE),
    parsed("gbt-45652", "GB/T 45652-2025: pre-training and fine-tuning data", "GB/T 45652-2025：生成式人工智能预训练和优化训练数据安全规范", _DATA),
)  # fmt: skip
