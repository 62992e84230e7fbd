{{- /* The graphs of agents. serve_apps.agent.graph_config has the same rules; here they fail before anything is
installed. Scope: that of llm-serving.validate. */ -}}
{{- define "llm-serving.validate.graphs" -}}
{{- $chats := include "llm-serving.validate.chats" . | fromJsonArray }}
{{- range $name, $agent := .agents }}
{{- if $agent.graph }}
{{- $scope := dict
      "path" (printf "agent.%s.graph" $name)
      "graph" $agent.graph
      "tools" ($agent.tools | default dict)
      "chats" $chats }}
{{- $unknown := include "llm-serving.validate.graphSteps" $scope | trim }}
{{ $unknown }}
{{- if not $unknown }}
{{ include "llm-serving.validate.graphWays" $scope }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Each step by itself, and that what it names is there.
Scope: dict "path" "graph" "tools" (by name) "chats" (names that chat). */ -}}
{{- define "llm-serving.validate.graphSteps" -}}
{{- $steps := .graph.steps }}
{{- $there := keys $steps | sortAlpha }}
{{- $withResults := list }}
{{- $branches := list }}
{{- $led := list .graph.start }}
{{- range $name := $there }}{{ if not (get $steps $name).parallel }}{{ $withResults = append $withResults $name }}{{ end }}{{ end }}
{{- range $steps }}
{{- $branches = concat $branches (.parallel | default list) }}
{{- range .next }}{{ $led = append $led .to }}{{ end }}
{{- end }}
{{- if not (hasKey $steps .graph.start) }}
{{ .path }}.start: no such step, got {{ .graph.start }}; one of: {{ join ", " $there }}
{{- end }}
{{- range $name, $step := $steps }}
{{- $path := printf "%s.steps.%s" $.path $name }}
{{- $kinds := list }}
{{- range $kind := list "ask" "call" "parallel" "say" }}{{ if not (kindIs "invalid" (index $step $kind)) }}{{ $kinds = append $kinds $kind }}{{ end }}{{ end }}
{{- if eq $name "question" }}
{{ $path }}: the word for what the user asks; choose another name
{{- end }}
{{- if ne (len $kinds) 1 }}
{{ $path }}: one kind of ask, call, parallel, say; got {{ $kinds | join ", " | default "none" }}
{{- end }}
{{- $asked := ($step.ask | default dict).model }}
{{- if and $asked (not (has $asked $.chats)) }}
{{ $path }}.ask.model: no model of task generate, got {{ $asked }}; one of: {{ $.chats | join ", " | default "none" }}
{{- end }}
{{- with $step.call }}
{{- $has := false }}
{{- range $tool := keys $.tools }}{{ if or (eq $step.call.function $tool) (hasPrefix (printf "%s_" $tool) $step.call.function) }}{{ $has = true }}{{ end }}{{ end }}
{{- if not $has }}
{{ $path }}.call.function: no tool has it, got {{ .function }}; one of: {{ keys $.tools | sortAlpha | join ", " | default "none" }}
{{- end }}
{{- end }}
{{- $named := list }}
{{- range $step.parallel }}{{ $named = append $named (list "parallel" . $there) }}{{ end }}
{{- range $step.next }}
{{- $named = append $named (list "next" .to $there) }}
{{- with .when }}
{{- with .step }}{{ $named = append $named (list "next.when.step" . $withResults) }}{{ end }}
{{- $says := false }}
{{- range $rule, $value := omit . "step" }}{{ if not (kindIs "invalid" $value) }}{{ $says = true }}{{ end }}{{ end }}
{{- if not $says }}
{{ $path }}.next.when: nothing to hold; set one of equals, contains, above, below, failed
{{- end }}
{{- end }}
{{- end }}
{{- $texts := list ($step.ask | default dict).prompt ($step.call | default dict).arguments $step.say | toYaml }}
{{- range regexFindAll "\\{[A-Za-z_][A-Za-z0-9_-]*\\}" $texts -1 }}
{{- $placeholder := trimAll "{}" . }}
{{- if ne $placeholder "question" }}{{ $named = append $named (list (first $kinds) $placeholder $withResults) }}{{ end }}
{{- end }}
{{- range $named | uniq }}
{{- if not (has (index . 1) (last .)) }}
{{ $path }}.{{ first . }}: no such step, got {{ index . 1 }}; one of: {{ last . | join ", " }}
{{- end }}
{{- end }}
{{- with $step.next }}
{{- $last := last . }}
{{- if or $last.when $last.atMost }}
{{ $path }}.next: the last way on must have neither when nor atMost, so that there always is one
{{- end }}
{{- end }}
{{- if and $step.parallel (not $step.next) }}
{{ $path }}.next: required after parallel; name the step that goes on with the results
{{- end }}
{{- if has $name $branches }}
{{- if or $step.next $step.parallel (has $name $led) (lt 1 (sub (len $branches) (without $branches $name | len))) }}
{{ $path }}: is done in parallel, so it must be a single step: without next, not itself parallel, named by one parallel and by no next
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* The steps together: each can be reached, and no circle is without end. Scope: as above, all of its steps known. */ -}}
{{- define "llm-serving.validate.graphWays" -}}
{{- $steps := .graph.steps }}
{{- $reached := list .graph.start }}
{{- $round := keys $steps | sortAlpha }}
{{- /* What can go on and what can go back for ever: of these only those are kept that lead to others of them and are
led to by others. */}}
{{- $circle := $round }}
{{- range $round }}
{{- $leads := list }}
{{- $led := list }}
{{- range $name, $step := $steps }}
{{- if has $name $reached }}{{ $reached = concat $reached ($step.parallel | default list) | uniq }}{{ end }}
{{- range $step.next }}
{{- if has $name $reached }}{{ $reached = append $reached .to | uniq }}{{ end }}
{{- if and (not .atMost) (has $name $circle) (has .to $circle) }}
{{- $leads = append $leads $name }}
{{- $led = append $led .to }}
{{- end }}
{{- end }}
{{- end }}
{{- $kept := list }}
{{- range $circle }}{{ if and (has . $leads) (has . $led) }}{{ $kept = append $kept . }}{{ end }}{{ end }}
{{- $circle = $kept }}
{{- end }}
{{- range $round }}
{{- if not (has . $reached) }}
{{ $.path }}.steps.{{ . }}: no way leads to it from {{ $.graph.start }}; lead there or take it out
{{- end }}
{{- end }}
{{- with $circle }}
{{ $.path }}.steps: {{ join ", " . }} lead in a circle without end; set atMost on a way back
{{- end }}
{{- end -}}
