{{- /* Renders the sizes of models that are known by the last part of their source, as `models.<name>.size` has them: from
the config.json and the weights' index of each. What a name ends in about fewer bits is not part of it.
Scope: none. */ -}}
{{- define "llm-serving.modelSizes" -}}
Qwen2.5-7B-Instruct: {parameters: 7.616, embeddings: 1.090, layers: 28, kvHeads: 4, headDim: 128}
Qwen2.5-14B-Instruct: {parameters: 14.770, embeddings: 1.557, layers: 48, kvHeads: 8, headDim: 128}
Qwen2.5-32B-Instruct: {parameters: 32.764, embeddings: 1.557, layers: 64, kvHeads: 8, headDim: 128}
Qwen2.5-72B-Instruct: {parameters: 72.706, embeddings: 2.491, layers: 80, kvHeads: 8, headDim: 128}
Qwen3-8B: {parameters: 8.191, embeddings: 1.245, layers: 36, kvHeads: 8, headDim: 128}
Qwen3-32B: {parameters: 32.762, embeddings: 1.556, layers: 64, kvHeads: 8, headDim: 128}
Llama-3.1-8B-Instruct: {parameters: 8.030, embeddings: 1.051, layers: 32, kvHeads: 8, headDim: 128}
Llama-3.3-70B-Instruct: {parameters: 70.554, embeddings: 2.101, layers: 80, kvHeads: 8, headDim: 128}
Llama-3.1-405B-Instruct: {parameters: 405.853, embeddings: 4.203, layers: 126, kvHeads: 8, headDim: 128}
Qwen3-235B-A22B-Instruct-2507: {parameters: 235.094, embeddings: 1.245, experts: 227.096, layers: 94, kvHeads: 4, headDim: 128}
{{- end -}}

{{- /* Renders the GB of weights of models whose names do not say it, as the Hub lists their files. Scope: none. */ -}}
{{- define "llm-serving.listedWeights" -}}
bge-m3: 2.3
bge-reranker-v2-m3: 2.3
{{- end -}}

{{- /* Renders how a model's weights and KV cache fill its GPUs, as YAML; nothing on CPU and where its size is not known.
GB are 10^9 bytes. Scope: the model (of llm-serving.models). */ -}}
{{- define "llm-serving.fit" -}}
{{- $model := include "llm-serving.sourceName" . }}
{{- $size := .size }}
{{- $known := regexReplaceAll "(?i)-(fp8|awq|gptq|int4|int8|w4a16|w8a8|nvfp4).*$" $model "" | lower }}
{{- range $name, $sizes := include "llm-serving.modelSizes" . | fromYaml }}
{{- /* An image's name has no capitals. */}}
{{- if and (not $size) (eq (lower $name) $known) }}{{ $size = $sizes }}{{ end }}
{{- end }}
{{- $share := get (include "llm-serving.accelerators" . | fromYaml) .accelerator.type | default dict }}
{{- if and $size $share.gpuGb }}
{{- $count := int .accelerator.count }}
{{- $nodes := int .nodes }}
{{- $data := int .parallelism.data }}
{{- $gpus := mul $count $nodes }}
{{- $bytes := include "llm-serving.parameterBytes" . | float64 }}
{{- $wide := eq "float32" (.engine.dtype | default "") | ternary 4.0 2.0 }}
{{- /* Of the experts, a data parallel rank has its share only. */}}
{{- $parameters := subf $size.parameters (mulf ($size.experts | default 0) (subf 1 (divf 1 $data))) }}
{{- /* These keep their bits, whatever the layers have. */}}
{{- $embeddings := $size.embeddings | default 0 }}
{{- if and $embeddings (lt $bytes 1.0) }}{{ $bytes = 0.52 }}{{ end }}
{{- $weights := addf (mulf (subf $parameters $embeddings) $bytes) (mulf $embeddings (maxf $bytes $wide)) }}
{{- /* For activations, CUDA graphs and the context of each GPU; what vLLM measures when it starts is about as much. */}}
{{- $each := subf (mulf $share.gpuGb (.engine.gpu_memory_utilization | default 0.9)) 1.5 }}
{{- $kvBytes := hasPrefix "fp8" (.engine.kv_cache_dtype | default "") | ternary 1.0 $wide }}
{{- /* Heads are not split further than one for each GPU. */}}
{{- $heads := mul $count (divf $size.kvHeads $count | ceil | int) }}
{{- /* Nor are layers: the stage with the most of them is the first to be full. */}}
{{- $layers := mul $nodes (divf $size.layers $nodes | ceil | int) }}
{{- $tokenBytes := mulf 2 $layers $heads $size.headDim $kvBytes }}
{{- $room := subf (mulf $each $gpus) $weights }}
{{- $on := printf "%d x %s" $count .accelerator.type }}
{{- if gt $nodes 1 }}{{ $on = printf "%s on each of %d nodes" $on $nodes }}{{ end }}
{{- if gt $data 1 }}{{ $on = printf "%s, in each of %d ranks" $on $data }}{{ end }}
{{- dict
      "parameters" $parameters
      "bytes" (divf $weights $parameters)
      "weightsGb" $weights
      "eachGb" $each
      "roomGb" $room
      "least" (divf $weights $each $nodes | ceil | int)
      "tokens" (divf (mulf $room 1e9) $tokenBytes | floor | int64)
      "tokenBytes" $tokenBytes
      "on" $on | toYaml }}
{{- end }}
{{- end -}}

{{- /* Renders what llm-serving.fit found, in a sentence. Scope: dict "fit" "engine". */ -}}
{{- define "llm-serving.fitInWords" -}}
{{- $tokens := int64 .fit.tokens }}
{{- printf "%.1f GB of weights and room for %d tokens of KV cache (%.1f GB) in %s" .fit.weightsGb $tokens .fit.roomGb .fit.on }}
{{- with .engine.max_model_len }}{{ printf ": %.1f requests of %d tokens at a time" (divf $tokens .) (int .) }}{{ end }}
{{- with .engine.max_num_seqs }}{{ printf ", or %d of %d" (int .) (div $tokens .) }}{{ end }}
{{- end -}}

{{- /* Renders the last part of a model's source, without its revision; of an image, the folder's name or else its own.
Scope: the model. */ -}}
{{- define "llm-serving.sourceName" -}}
{{- regexReplaceAll "@[^#]*" .source "" | splitList "/" | last | splitList "#" | last | splitList ":" | first }}
{{- end -}}

{{- /* Renders the bytes of a parameter, by what the name of a model and engine.quantization say; four bits come with
scales, 0.52 bytes in all, and with embeddings of 16. Scope: the model. */ -}}
{{- define "llm-serving.parameterBytes" -}}
{{- $said := printf "%s %s" (include "llm-serving.sourceName" .) (.engine.quantization | default "") | lower }}
{{- if regexMatch "fp8|int8|w8a8" $said }}1
{{- else if regexMatch "awq|gptq|fp4|int4|w4a16|bitsandbytes" $said }}0.56
{{- else }}{{ eq "float32" (.engine.dtype | default "") | ternary 4 2 }}
{{- end }}
{{- end -}}

{{- /* Renders the billions of parameters that a model's source says it has, or 0; a mixture of experts counts whole:
30B-A3B is 30, 8x7B is 56. Scope: the model. */ -}}
{{- define "llm-serving.saidBillions" -}}
{{- $most := 0.0 }}
{{- range regexFindAll "([0-9]+x)?[0-9]+([.][0-9]+)?b([^a-z0-9]|$)" (regexReplaceAll "@[^#]*" .source "" | lower) -1 }}
{{- $factors := regexFind "^[0-9.x]+" . | splitList "x" }}
{{- $most = maxf $most (mulf (len $factors | eq 1 | ternary "1" (first $factors) | float64) (last $factors | float64)) }}
{{- end }}
{{- $most }}
{{- end -}}

{{- /* Renders the GB of weights of every model of which it is known, by its name, as YAML: from its size, as
the Hub lists them, or from the parameters in its name. Scope: the root. */ -}}
{{- define "llm-serving.weightsGb" -}}
{{- $listed := include "llm-serving.listedWeights" . | fromYaml }}
{{- $sizes := dict }}
{{- range $name, $model := merge (dict) (include "llm-serving.models" . | fromJson) (include "llm-serving.standalone" . | fromJson) }}
{{- $fit := include "llm-serving.fit" $model | fromYaml }}
{{- $said := mulf (include "llm-serving.saidBillions" $model | float64) (include "llm-serving.parameterBytes" $model | float64) }}
{{- with $fit.weightsGb | default (get $listed (include "llm-serving.sourceName" $model)) | default $said }}
{{- $_ := set $sizes $name . }}
{{- end }}
{{- end }}
{{- toYaml $sizes }}
{{- end -}}
