// What `oci-runtime-tool validate` does, of which Debian has the library only, but for the JSON
// schema, which it would fetch: says which bundles are not as the runtime spec wants them, and why.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/runtime-tools/validate"
)

func main() {
	for _, bundle := range os.Args[1:] {
		v, err := validate.NewValidatorFromPath(bundle, true, "linux")
		if err != nil {
			fmt.Println(bundle, err)
			continue
		}
		for _, check := range []func() error{
			v.CheckPlatform, v.CheckRoot, v.CheckMandatoryFields, v.CheckSemVer, v.CheckMounts,
			v.CheckProcess, v.CheckLinux, v.CheckAnnotations, v.CheckHooks,
		} {
			// Where nothing is wrong, what they return is no nil, but a list without errors.
			if err := check(); err != nil && !strings.HasPrefix(err.Error(), "0 errors") {
				fmt.Println(bundle, err)
			}
		}
	}
}
