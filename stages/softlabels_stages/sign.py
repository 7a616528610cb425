"""Sign a store, or every split of a folder of stores: softlabels sign STORE --key=KEY.pem.

Who has the public key can check that the store is as it was signed: verify and pull --signed_by=PUB.pem, train-student
--pinned.signed_by=PUB.pem. A key is Ed25519 or ECDSA P-256, as openssl makes it:
openssl genpkey -algorithm ed25519 -out KEY.pem. The passphrase of an encrypted one is taken from
$SOFTLABELS_KEY_PASSPHRASE. No labels are read: verify the store first.
"""

from __future__ import annotations

import sys

from softlabels.errors import ConfigError
from softlabels.jobs.sign import sign
from softlabels_stages.arguments import Sign
from softlabels_stages.run import PRINTED, stage


@stage("sign")
def main(args: Sign) -> int:
    """Sign it."""
    if not args.key:
        raise ConfigError("no key is named", remedy="write softlabels sign STORE --key=KEY.pem")
    sign(args.store, args.key, watch=PRINTED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
