"""Train: python train.py -opt options/train/student.yml"""

import sys

import mipkd_sr.train  # before basicsr, which it repairs
import my_sr  # noqa: F401  (registers its classes)

sys.exit(mipkd_sr.train.main())
