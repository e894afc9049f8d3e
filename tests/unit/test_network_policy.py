"""The network policy: what of a Ray cluster can be reached from outside of it, and by whom."""

from pathlib import Path
from typing import Any

import yaml

CLUSTER = [{"key": "ray.io/cluster", "operator": "Exists"}]
SERVE, METRICS, DASHBOARD = {8000, 9000}, {8080}, {8265}


def policy() -> dict[str, Any]:
    file = Path(__file__).parents[2] / "k8s/network-policy.yaml"
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


def test_it_holds_for_every_pod_of_a_cluster_and_for_what_comes_in() -> None:
    spec = policy()["spec"]
    assert spec["podSelector"] == {"matchExpressions": CLUSTER}
    assert spec["policyTypes"] == ["Ingress"]


def test_only_the_cluster_itself_reaches_all_ports() -> None:
    rules = policy()["spec"]["ingress"]
    inside = [rule for rule in rules if "ports" not in rule]
    assert inside == [{"from": [{"podSelector": {"matchExpressions": CLUSTER}}]}]
    for rule in rules:
        # A rule without `from`, or with an empty selector of pods, is for everybody.
        assert rule["from"]
        for peer in rule["from"]:
            assert peer["podSelector"]


def test_others_reach_one_purpose_each() -> None:
    rules = policy()["spec"]["ingress"]
    opened = [{port["port"] for port in rule["ports"]} for rule in rules if "ports" in rule]
    assert sorted(opened, key=min) == [SERVE, METRICS, DASHBOARD]
    assert all(port["protocol"] == "TCP" for rule in rules for port in rule.get("ports", ()))
