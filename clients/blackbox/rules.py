"""All rules of the suite: importing them registers them."""

from blackbox import answer_rules, bundle_rules, resources_rules, search_rules
from blackbox.spec import RULES

__all__ = ["RULES", "answer_rules", "bundle_rules", "resources_rules", "search_rules"]
