package bench

import (
	"errors"
	"fmt"
	"io"
	"time"

	"go.yaml.in/yaml/v3"
)

// scriptFile is a script as people write it.
type scriptFile struct {
	Name       string        `yaml:"name"`
	Sessions   int           `yaml:"sessions"`
	Agents     int           `yaml:"agents"`
	Receivers  int           `yaml:"receivers"`
	Companies  int           `yaml:"companies"`
	Other      float64       `yaml:"other"`
	Chats      int           `yaml:"chats"`
	Messages   int           `yaml:"messages"`
	Size       int           `yaml:"size"`
	Rate       float64       `yaml:"rate"`
	LoginRate  float64       `yaml:"login_rate"`
	Again      bool          `yaml:"again"`
	Resume     bool          `yaml:"resume"`
	Seed       uint64        `yaml:"seed"`
	Settle     time.Duration `yaml:"settle"`
	Thresholds string        `yaml:"thresholds"`
	Steps      []Step        `yaml:"steps"`
}

// maxScript bounds a script file.
const maxScript = 1 << 20

// ReadScript reads a script from YAML into o; what the file does not name stays
// as it is. Unknown names are errors.
//
//	name: evening
//	sessions: 3000
//	receivers: 10
//	resume: true           # users whose socket ends come back, and are owed all; again: true: and miss what came meanwhile
//	steps:
//	  - {name: quiet, for: 10s, rate: 100}
//	  - {do: storm, rate: 500, pace: 1000}
//	  - {do: kill, for: 1m, every: 10s, pause: 1s}
//	thresholds: lost==0,storm.p99<100ms
func ReadScript(r io.Reader, o ScriptOptions) (ScriptOptions, error) {
	var f scriptFile
	dec := yaml.NewDecoder(io.LimitReader(r, maxScript))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return o, fmt.Errorf("read script: %w", err)
	}
	if len(f.Steps) == 0 {
		return o, errors.New("read script: no steps")
	}
	if err := dec.Decode(new(scriptFile)); !errors.Is(err, io.EOF) {
		return o, errors.New("read script: more than one document")
	}
	set(&o.Title, f.Name)
	set(&o.Sessions, f.Sessions)
	set(&o.Agents, f.Agents)
	set(&o.Receivers, f.Receivers)
	set(&o.Companies, f.Companies)
	set(&o.Other, f.Other)
	set(&o.Chats, f.Chats)
	set(&o.Messages, f.Messages)
	set(&o.Size, f.Size)
	set(&o.Rate, f.Rate)
	set(&o.LoginRate, f.LoginRate)
	set(&o.Again, f.Again)
	set(&o.Resume, f.Resume)
	set(&o.Seed, f.Seed)
	set(&o.Settle, f.Settle)
	set(&o.Thresholds, f.Thresholds)
	o.Steps = f.Steps
	return o, nil
}

// set takes over what was given.
func set[T comparable](into *T, given T) {
	var zero T
	if given != zero {
		*into = given
	}
}
