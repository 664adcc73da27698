# SPDX-License-Identifier: BSD-2-Clause
"""Holds a Kubernetes manifest against the image, and against itself: manifest.py MANIFEST, with what
'podman image inspect' prints as its input."""
import json
import sys

import yaml

objects = {o["kind"]: o for o in yaml.safe_load_all(open(sys.argv[1]))}
config = json.load(sys.stdin)[0]["Config"]
pod = objects["Deployment"]["spec"]["template"]
container, = pod["spec"]["containers"]
volume, = pod["spec"]["volumes"]
mount, = container["volumeMounts"]
rights = container["securityContext"]
arguments = container["args"]
assert f'{rights["runAsUser"]}:{rights["runAsGroup"]}' == config["User"], config["User"]
assert rights["capabilities"] == {"drop": ["ALL"], "add": ["BPF", "NET_ADMIN"]}
assert not pod["spec"]["hostNetwork"]
assert arguments[arguments.index("--ports-file") + 1] == mount["mountPath"] + "/ports"
assert mount["name"] == volume["name"] and volume["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
assert container["readinessProbe"]["exec"]["command"] == ["echo-server", "probe", "--ports", "7777", "127.0.0.1"]
labels = pod["metadata"]["labels"]
assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == objects["Service"]["spec"]["selector"] == labels
