// Command render is `helm template` and the notes of `helm install`, for many renders: each line of JSON on stdin asks
// for one, and a line on stdout answers it. The code is Helm's own; only the start of a process for each is saved.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/loader"
	loaderv2 "helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/cli/values"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/strvals"
)

// request is what `helm template RELEASE CHART --namespace … --kube-version … --values FILE --values - --set SETTING` is
// told, with what would come on its stdin.
type request struct {
	Chart, Release, Namespace, Kubernetes string
	Files, Settings                       []string
	Stdin                                 string
}

// answer has what Helm prints to stdout, and the notes; or what it prints to stderr.
type answer struct {
	Manifest string `json:"manifest"`
	Notes    string `json:"notes"`
	Error    string `json:"error"`
}

func main() {
	log.SetOutput(io.Discard)
	slog.SetDefault(slog.New(slog.DiscardHandler))
	debug.SetGCPercent(800) // memory is there, and a third of the time would go into freeing it
	requests, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var asked request
		if err := requests.Decode(&asked); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			fmt.Fprintln(os.Stderr, "not a request:", err)
			os.Exit(2)
		}
		if err := answers.Encode(answerTo(asked)); err != nil {
			fmt.Fprintln(os.Stderr, "nobody listens:", err)
			os.Exit(1)
		}
	}
}

func answerTo(asked request) answer {
	made, err := render(asked)
	if err != nil {
		return answer{Error: "Error: " + err.Error()}
	}
	var printed strings.Builder
	fmt.Fprintln(&printed, strings.TrimSpace(made.Manifest))
	for _, hook := range made.Hooks {
		fmt.Fprintf(&printed, "---\n# Source: %s\n%s\n", hook.Path, hook.Manifest)
	}
	return answer{Manifest: printed.String(), Notes: made.Info.Notes}
}

func render(asked request) (*release.Release, error) {
	given, err := valuesOf(asked)
	if err != nil {
		return nil, err
	}
	chart, err := loader.Load(asked.Chart)
	if err != nil {
		return nil, err
	}
	install := action.NewInstall(action.NewConfiguration())
	install.DryRunStrategy = action.DryRunClient
	install.ReleaseName, install.Namespace = asked.Release, asked.Namespace
	if asked.Kubernetes != "" {
		if install.KubeVersion, err = common.ParseKubeVersion(asked.Kubernetes); err != nil {
			return nil, err
		}
	}
	made, err := install.Run(chart, given)
	if err != nil {
		return nil, err
	}
	return made.(*release.Release), nil
}

func valuesOf(asked request) (map[string]any, error) {
	files := values.Options{ValueFiles: asked.Files}
	given, err := files.MergeValues(nil)
	if err != nil {
		return nil, err
	}
	over, err := loaderv2.LoadValues(strings.NewReader(asked.Stdin))
	if err != nil {
		return nil, err
	}
	given = loaderv2.MergeMaps(given, over)
	for _, setting := range asked.Settings {
		if err := strvals.ParseInto(setting, given); err != nil {
			return nil, fmt.Errorf("failed parsing --set data: %w", err)
		}
	}
	return given, nil
}
