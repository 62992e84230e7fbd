# Both images, for `docker buildx bake --file images/docker-bake.hcl`, run in the repository's root. `make images` builds
# the same one after another, with podman or buildah too. What is inside is decided by the locks beside the Dockerfiles.

# Also appVersion in charts/llm-serving/Chart.yaml: the chart pulls the images by it.
variable "VERSION" { default = "0.1.0" }
variable "PYTHON" { default = "3.11" }
variable "BASE_IMAGE" { default = "python:${PYTHON}-slim-bookworm" }
# With a trailing slash, for example REGISTRY=registry.example.com/ml/
variable "REGISTRY" { default = "" }

group "default" { targets = ["ray-serve", "ray-vllm"] }

target "ray-serve" {
  context    = "."
  dockerfile = "images/ray-serve/Dockerfile"
  args       = { BASE_IMAGE = BASE_IMAGE, LOCK = "images/ray-serve/requirements.txt" }
  tags       = ["${REGISTRY}llm-serving/ray-serve:${VERSION}"]
}

target "ray-vllm" {
  context    = "."
  dockerfile = "images/ray-vllm/Dockerfile"
  args       = { BASE_IMAGE = BASE_IMAGE, LOCK = "images/ray-vllm/requirements.txt" }
  tags       = ["${REGISTRY}llm-serving/ray-vllm:${VERSION}"]
}

# The same engine for CPUs: laptops, CI, small embedders.
target "ray-vllm-cpu" {
  context    = "."
  dockerfile = "images/ray-vllm/Dockerfile"
  args       = { BASE_IMAGE = BASE_IMAGE, LOCK = "images/ray-vllm/requirements-cpu.txt" }
  tags       = ["${REGISTRY}llm-serving/ray-vllm:${VERSION}-cpu"]
}
