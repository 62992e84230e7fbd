module llm-serving/tools/crds

go 1.26.5

require (
	github.com/aws/karpenter-provider-aws v1.14.0
	github.com/external-secrets/external-secrets v1.3.2
	github.com/kedacore/keda/v2 v2.21.0
	github.com/prometheus-operator/prometheus-operator v0.92.0
	github.com/ray-project/kuberay/ray-operator v1.6.2
	sigs.k8s.io/gateway-api v1.6.3
)
